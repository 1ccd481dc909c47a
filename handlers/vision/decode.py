"""Bytes to an upright RGB picture, within limits."""

import base64
import binascii
import io
import re
import warnings

import numpy as np
from PIL import Image, ImageOps

from handlers.core.errors import ImageTooLarge, InvalidImage
from handlers.core.tensor import Payload

# Formats that people send. Pillow reads more, some through other programs (EPS) or with a risky past.
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "AVIF")
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,")
# The limit is ours (`max_pixels`), by the header, before anything is decoded; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


def decode_image(payload: Payload, max_pixels: int) -> Image.Image:
    """The first frame of a picture as RGB, turned upright by its EXIF orientation, alpha laid on white.

    `payload` is a file's bytes, the same in base64 (a data URL, too), or a uint8 array [height, width, 3].
    Raises InvalidImage, and ImageTooLarge for more than `max_pixels` pixels.
    """
    if isinstance(payload, np.ndarray):
        return _from_array(payload, max_pixels)
    data = from_base64(payload) if isinstance(payload, str) else payload
    if not data:
        raise InvalidImage("the picture is empty")
    # Pillow warns of odd metadata that does not keep it from reading the pixels.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _open(data)
        _check_size(image.width, image.height, max_pixels)
        try:
            image.load()
            return to_rgb(_upright(image))
        except MemoryError:
            raise
        except Exception as error:
            raise InvalidImage(f"the picture is damaged: {error}") from None


def from_base64(text: str) -> bytes:
    """Raises InvalidImage."""
    match = _DATA_URL.match(text)
    try:
        return base64.b64decode(text[match.end() :] if match else text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImage("the picture in JSON must be base64") from None


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if _known(name)])
    except MemoryError:
        raise
    except Exception:
        names = ", ".join(name for name in FORMATS if name != "MPO")
        raise InvalidImage(f"not a picture that can be read; readable formats: {names}") from None


def _known(name: str) -> bool:
    Image.init()
    return name in Image.OPEN


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLarge(f"the picture has {width} x {height} pixels; at most {max_pixels} are allowed")


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise InvalidImage(
            f"pixels must be UINT8 of the shape [height, width, 3], not {array.dtype} of {list(array.shape)}"
        )
    _check_size(array.shape[1], array.shape[0], max_pixels)
    return Image.fromarray(array)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF: the pixels are there all the same
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB: alpha on white, 16 bits and floats scaled to eight."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(values: np.ndarray) -> np.ndarray:
    """The type says 32 bits where the file had 16, or floats of 0 to 1 or 0 to 255: the largest value tells."""
    top = values.max(initial=0)
    if values.dtype.kind == "f":
        scaled = np.nan_to_num(values) * (255.0 if top <= 1 else 1.0)
    else:
        scaled = values / 257.0 if top > 255 or values.dtype == np.uint16 else values
    eight: np.ndarray = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return eight
