"""Reject TIFFs whose colors Pillow does not read correctly."""

from typing import Any

from PIL import ImagePalette, TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from handlers.core.errors import InvalidImage

# Let libtiff also read uncompressed files. Pillow's code silently misreads 16-bit planes, inverted bit order and
# chroma subsampling.
TiffImagePlugin.READ_LIBTIFF = True

WHITE_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR = 0, 2, 3, 5, 6
"""Values of the photometric interpretation (TIFF 6.0, section 8)."""
_CMYK_INKS = 1
_SIGNED = 2
_PLANES = 2
_READ_FROM_PLANES = (RGB, SEPARATED, YCBCR)
_INK_SET, _SUBSAMPLING = 332, 530
_JPEG = ("jpeg", "tiff_jpeg")
_LEVELS = 256


def check_tiff(image: TiffImageFile) -> tuple[int, int]:
    """Check a TIFF, and correct a palette with 8-bit values.

    The format defines 16-bit palettes, and libtiff reads all values as 16-bit.

    Returns:
        Width and height of the tiles, 0 for a TIFF without tiles.

    Raises:
        InvalidImage: The colors are undefined or unsupported.
    """
    tags = image.tag_v2
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO)
    if _SIGNED in tags.get(TiffImagePlugin.SAMPLEFORMAT, ()):
        raise InvalidImage(
            "the TIFF has signed integers, for which white is not defined; save it with unsigned integers"
        )
    if (
        tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _PLANES
        and tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) > 1
        and photometric not in _READ_FROM_PLANES
    ):
        raise InvalidImage(
            f"the TIFF has its channels in separate planes, which is not supported for photometric interpretation "
            f"{photometric}; interleave them"
        )
    if photometric == YCBCR and _SUBSAMPLING not in tags and image.info.get("compression") not in _JPEG:
        raise InvalidImage("the TIFF is YCbCr without the tag YCbCrSubSampling; save it as RGB")
    if photometric == SEPARATED and tags.get(_INK_SET, _CMYK_INKS) != _CMYK_INKS:
        raise InvalidImage("the TIFF has inks other than CMYK; save it as RGB")
    if photometric == PALETTE:
        _read_palette(image, tags.get(TiffImagePlugin.COLORMAP, ()))
    tile = tags.get(TiffImagePlugin.TILEWIDTH, 0), tags.get(TiffImagePlugin.TILELENGTH, 0)
    if not all(isinstance(size, int) for size in tile):
        raise InvalidImage("the width and height of the TIFF's tiles must be integers")
    return tile


def _read_palette(image: TiffImageFile, colors: tuple[Any, ...]) -> None:
    if colors and max(colors) < _LEVELS:
        image.palette = ImagePalette.raw("RGB;L", bytes(colors))
