"""Convert images of all Pillow modes and bit depths to 8-bit RGB, with alpha blended onto white."""

import numpy as np
from PIL import Image, TiffImagePlugin

from handlers.core.errors import InvalidImage
from handlers.vision.tiff import WHITE_IS_ZERO

_ROWS_PER_STEP = 256
_FLOAT_LEVELS = (16.0, 255.0)
"""Range of a float image's largest value for which levels from 0 to 255 are assumed. An image with a smaller largest
value could be a rendering with highlights above 1."""
_INTEGER_BITS = {"I": 32}
_DEPTH_OFFSET = 24
"""Offset of the bit depth in a PNG."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image in mode RGB.

    Raises:
        InvalidImage: The file does not define which value is white.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(_deep_to_eight_bits(image)).convert("RGB")
    if _has_unused_alpha(image):
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # Pillow has no direct conversion
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "PA"):
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def fit_png_transparency(image: Image.Image, data: bytes) -> None:
    """Convert the transparent color of a PNG (tRNS) from the bit depth of the file to that of Pillow's pixels."""
    transparent = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("L", "RGB"):
        return
    bits = data[_DEPTH_OFFSET]
    if isinstance(transparent, int):
        image.info["transparency"] = transparent % 2**bits * 255 // (2**bits - 1)
    elif isinstance(transparent, tuple) and bits > 8:  # Pillow keeps the upper byte of a color
        image.info["transparency"] = tuple(value >> (bits - 8) for value in transparent)


def scale_to_uint8(values: np.ndarray, white: float) -> np.ndarray:
    """Scale values [height, ...] from 0 to `white` to uint8 from 0 to 255, in the same shape."""
    result = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS_PER_STEP):  # in steps, because floats take four times the memory
        levels = np.nan_to_num(values[start : start + _ROWS_PER_STEP].astype(np.float32)) * np.float32(
            255.0 / white
        )
        result[start : start + _ROWS_PER_STEP] = np.clip(np.rint(levels), 0, 255)
    return result


def _has_unused_alpha(image: Image.Image) -> bool:
    """Return True if an optional alpha channel is 0 everywhere. Browsers show such images as opaque."""
    if image.mode != "RGBA":
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        is_declared = TiffImagePlugin.EXTRASAMPLES in image.tag_v2
    else:
        is_declared = image.format != "BMP"
    return not is_declared and image.getchannel("A").getextrema() == (0, 0)


def _deep_to_eight_bits(image: Image.Image) -> np.ndarray:
    """Return a gray image of more than 8 bits as uint8 [height, width]."""
    values = np.asarray(image)
    is_inverted = False
    bits = _INTEGER_BITS.get(image.mode, 16)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (bits,))[0]
        is_inverted = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO
        if image.mode == "F" and image.tag_v2.prefix == TiffImagePlugin.MM:
            # libtiff has converted the byte order, and Pillow swaps it again.
            values = values.byteswap()
    if image.mode == "F":
        white = _float_white(values)
    else:
        values = values.view(np.uint32) if image.mode == "I" else values
        white = _integer_white(values, bits)
    levels = scale_to_uint8(values, white)
    if is_inverted:
        np.subtract(255, levels, out=levels)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        levels[values == transparent] = 255
    return levels


def _integer_white(values: np.ndarray, bits: int) -> float:
    """Return the white level 2^bits - 1 (TIFF 6.0, BitsPerSample). Raises InvalidImage for a black 32-bit image."""
    white = 2**bits - 1
    largest = int(values.max())
    if bits == 32 and 0 < largest < white / 510:
        raise InvalidImage(
            f"the image's largest value is {largest}, but white is {white} in 32 bits: save the image with "
            "8 or 16 bits"
        )
    return float(white)


def _float_white(values: np.ndarray) -> float:
    """Return the white level: 1 for values from 0 to 1, 255 for levels. Raises InvalidImage for other values."""
    low, high = float(np.nanmin(values, initial=0)), float(np.nanmax(values, initial=0))
    if low >= 0 and high <= 1:
        return 1.0
    lower, upper = _FLOAT_LEVELS
    if low >= 0 and lower < high <= upper:
        return upper
    raise InvalidImage(
        f"cannot determine the white level of a float image with values from {low:g} to {high:g}; scale the values "
        "to 0 to 1"
    )
