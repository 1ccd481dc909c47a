"""Pixels that come as numbers, with numpy's meaning: rows from the top, RGB last, levels from 0 to 255."""

from collections.abc import Callable

import numpy as np

from handlers.core.errors import InvalidImage

DATATYPES = ("UINT8", "FP16", "FP32", "FP64")
"""Those of the Open Inference Protocol that may hold pixels. Wider integers could be images of 16 bits."""


def checked_pixels(array: np.ndarray, check_size: Callable[[int, int], None]) -> np.ndarray:
    """uint8 [height, width, 3], not copied if it is that already; `check_size` gets width and height.

    Floats are levels from 0 to 255, too, as `pixels.astype("float32")` makes them, rounded to the nearest. Where none
    is above 1 and not all are 0 they most likely run from 0 to 1: that is refused, as the image would be black.
    Raises InvalidImage.
    """
    kind = array.dtype
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        hint = ": move the channels to the end" if array.ndim == 3 and array.shape[0] == 3 else ""
        raise InvalidImage(f"pixels must be of the shape [height, width, 3], not {list(array.shape)}{hint}")
    if kind != np.uint8 and kind.kind != "f":
        raise InvalidImage(f"pixels must be UINT8, or floats from 0 to 255, not {kind}")
    check_size(array.shape[1], array.shape[0])
    if kind == np.uint8:
        return array
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # nor where one is not a number
        hint = ": send them as they are before normalization" if low < 0 else ""
        raise InvalidImage(f"pixels must be from 0 to 255, not from {low:g} to {high:g}{hint}")
    if 0 < high <= 1:
        raise InvalidImage(
            "the pixels are from 0 to 1; they must be levels from 0 to 255: multiply them by 255"
        )
    levels: np.ndarray = np.rint(array).astype(np.uint8)
    return levels
