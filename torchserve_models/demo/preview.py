"""A small copy of an image for the page: browsers cannot show every format that the server reads."""

import io

from PIL import Image, ImageOps

LONGEST_SIDE = 640
# Pillow shows others, such as 16 bits, with wrong brightness.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def preview(content: bytes) -> bytes | None:
    """A JPEG of at most LONGEST_SIDE pixels a side, upright; None for what Pillow cannot show."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode not in _MODES:
                return None
            image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception:  # the server, which gets the file as it is, says what is wrong with it
        return None
    white = Image.new("RGBA", upright.size, "white")
    buffer = io.BytesIO()
    Image.alpha_composite(white, upright).convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
