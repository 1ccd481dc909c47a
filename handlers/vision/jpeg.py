"""Decode JPEGs with libjpeg-turbo, without a copy, and at a reduced size if possible."""

import logging

import numpy as np

logger = logging.getLogger(__name__)
try:
    import simplejpeg
except ImportError:
    simplejpeg = None
    logger.warning("simplejpeg is not installed: Pillow decodes JPEGs, which is slower")

_END_MARKER = b"\xff\xd9"
# Above half the size, libjpeg-turbo's code for reduced sizes is so slow that fewer pixels save nothing.
_SMALLEST_FACTOR = 2


def append_end_marker(data: bytes) -> bytes:
    """Append the end marker (EOI), which some encoders omit, to a JPEG without it.

    Use only for files with one scan, because the decoder still detects that such a file is truncated. It does not
    detect a truncation between two scans of a progressive file.
    """
    return data if bytes(data[-len(_END_MARKER) :]) == _END_MARKER else bytes(data) + _END_MARKER


def decode_jpeg(data: bytes, size: tuple[int, int], min_size: tuple[int, int] | None) -> np.ndarray | None:
    """Decode a JPEG of one or three components.

    Args:
        data: The file.
        size: The checked (height, width). A file of another size is not decoded.
        min_size: Minimum (height, width). The decoder may reduce the size to between one and four eighths (JPEG codes
            blocks of 8 x 8: ITU T.81, A.3), but not below this minimum. None: full size, with Pillow's exact pixels.

    Returns:
        RGB uint8 [height, width, 3], or None if another decoder must process the file.
    """
    if simplejpeg is None:
        return None
    height, width = min_size or (0, 0)
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != size:
            return None
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            data, min_height=height, min_width=width, min_factor=_SMALLEST_FACTOR if min_size else 1
        )
        return pixels
    except ValueError:  # damaged, truncated or unusual
        return None
