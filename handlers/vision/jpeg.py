"""JPEG pixels by libjpeg-turbo alone: no copy on the way, and smaller than stored where that is enough."""

import logging

import numpy as np

logger = logging.getLogger(__name__)
try:
    import simplejpeg
except ImportError:
    simplejpeg = None
    logger.warning("simplejpeg is not installed: Pillow decodes JPEGs, which takes longer")

_END = b"\xff\xd9"
# Between a half and the whole, libjpeg-turbo's slower code for it costs what fewer pixels save.
_SMALLEST_FACTOR = 2


def with_end_marker(data: bytes) -> bytes:
    """A JPEG with the end marker (EOI) that some encoders leave out.

    The decoder still finds a file of one scan that is cut off before its last block. One of several (progressive) it
    would not, where it is cut off between two.
    """
    return data if bytes(data[-len(_END) :]) == _END else bytes(data) + _END


def decode_jpeg(data: bytes, size: tuple[int, int], at_least: tuple[int, int] | None) -> np.ndarray | None:
    """RGB uint8 [height, width, 3] of a JPEG of one or three components, or None: another decoder shall decide.

    `size` = (height, width) is what has been checked: a file that says otherwise here is not decoded. With
    `at_least` = (height, width) the decoder may leave out fine detail and give one to four eighths of the size (it
    codes blocks of 8 x 8: ITU T.81, A.3), no smaller than that. Without it the pixels are bit for bit Pillow's.
    """
    if simplejpeg is None:
        return None
    height, width = at_least or (0, 0)
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != size:
            return None
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            data, min_height=height, min_width=width, min_factor=_SMALLEST_FACTOR if at_least else 1
        )
        return pixels
    except ValueError:  # damaged, cut off, or odd
        return None
