"""Pillow's modes and bit depths as RGB of eight bits: black is 0, white is 255, alpha lies on white."""

import numpy as np
from PIL import Image, TiffImagePlugin

from handlers.core.errors import InvalidImage
from handlers.vision.tiff import WHITE_IS_ZERO

_ROWS = 256
_FLOAT_LEVELS = (16.0, 255.0)
"""The largest value of a float image that has levels from 0 to 255. Below it could as well have been rendered
with highlights above 1."""
_INTEGER_BITS = {"I": 32}
_DEPTH_OFFSET = 24
"""Of the bit depth in a PNG."""


def to_rgb(image: Image.Image) -> Image.Image:
    """An image that is loaded, in mode RGB.

    Raises InvalidImage where the file does not tell which value is white.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(_deep_to_eight_bits(image)).convert("RGB")
    if _has_unused_alpha(image):
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # Pillow knows no other way
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "PA"):
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def fit_png_transparency(image: Image.Image, data: bytes) -> None:
    """The transparent color of a PNG (tRNS) in the depth of Pillow's pixels; the file has it in its own."""
    transparent = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("L", "RGB"):
        return
    bits = data[_DEPTH_OFFSET]
    if isinstance(transparent, int):
        image.info["transparency"] = transparent % 2**bits * 255 // (2**bits - 1)
    elif isinstance(transparent, tuple) and bits > 8:  # of a color, Pillow keeps the upper byte
        image.info["transparency"] = tuple(value >> (bits - 8) for value in transparent)


def scaled(values: np.ndarray, white: float) -> np.ndarray:
    """Values from 0 to `white` [height, ...] as uint8 from 0 to 255, in the same shape."""
    eight = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):  # in parts, as floats take four times the memory
        scaled = np.nan_to_num(values[start : start + _ROWS].astype(np.float32)) * np.float32(255.0 / white)
        eight[start : start + _ROWS] = np.clip(np.rint(scaled), 0, 255)
    return eight


def _has_unused_alpha(image: Image.Image) -> bool:
    """Alpha that is 0 everywhere in a file whose fourth channel need not be alpha: browsers take it as opaque."""
    if image.mode != "RGBA":
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        is_declared = TiffImagePlugin.EXTRASAMPLES in image.tag_v2
    else:
        is_declared = image.format != "BMP"
    return not is_declared and image.getchannel("A").getextrema() == (0, 0)


def _deep_to_eight_bits(image: Image.Image) -> np.ndarray:
    """uint8 [height, width] of a gray image with more than eight bits."""
    values = np.asarray(image)
    is_inverted = False
    bits = _INTEGER_BITS.get(image.mode, 16)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (bits,))[0]
        is_inverted = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO
        if image.mode == "F" and image.tag_v2.prefix == TiffImagePlugin.MM:
            values = (
                values.byteswap()
            )  # libtiff has put them into this machine's order, and Pillow swaps them again
    if image.mode == "F":
        white = _float_white(values)
    else:
        values = values.view(np.uint32) if image.mode == "I" else values
        white = _integer_white(values, bits)
    levels = scaled(values, white)
    if is_inverted:
        np.subtract(255, levels, out=levels)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        levels[values == transparent] = 255
    return levels


def _integer_white(values: np.ndarray, bits: int) -> float:
    """2^bits - 1 (TIFF 6.0, BitsPerSample). Raises InvalidImage where 32 bits would all be black by that."""
    white = 2**bits - 1
    largest = int(values.max())
    if bits == 32 and 0 < largest < white / 510:
        raise InvalidImage(
            f"the image's largest value is {largest}, and white of 32 bits is {white}: save the image with the "
            "bits that its values have, 8 or 16"
        )
    return float(white)


def _float_white(values: np.ndarray) -> float:
    """1 for values from 0 to 1, 255 for levels. Raises InvalidImage where they may be either, or are neither."""
    low, high = float(np.nanmin(values, initial=0)), float(np.nanmax(values, initial=0))
    if low >= 0 and high <= 1:
        return 1.0
    least, most = _FLOAT_LEVELS
    if low >= 0 and least < high <= most:
        return most
    raise InvalidImage(
        f"the image's values are floats from {low:g} to {high:g}, of which none is known to be white: "
        "scale them to 0 to 1"
    )
