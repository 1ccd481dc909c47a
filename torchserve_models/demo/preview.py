"""A small JPEG copy of an image, because browsers cannot show every format that the server accepts."""

import io

from PIL import Image, ImageOps

MAX_SIDE_PIXELS = 640
# Pillow converts other modes, such as 16 bits, with the wrong brightness.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def jpeg_preview(content: bytes) -> bytes | None:
    """Return an upright JPEG of at most MAX_SIDE_PIXELS per side, or None if Pillow cannot convert the image."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode not in _MODES:
                return None
            image.draft("RGB", (MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
            image.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception:  # the server receives the file unchanged and reports its error
        return None
    white = Image.new("RGBA", upright.size, "white")
    buffer = io.BytesIO()
    Image.alpha_composite(white, upright).convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
