"""Validate pixels that are sent as numbers: [height, width, RGB] with levels from 0 to 255."""

from collections.abc import Callable

import numpy as np

from handlers.core.errors import InvalidImage

DATATYPES = ("UINT8", "FP16", "FP32", "FP64")
"""Allowed Open Inference Protocol datatypes of pixels. Wider integers are rejected because they could be 16-bit."""


def validate_pixels(array: np.ndarray, check_size: Callable[[int, int], None]) -> np.ndarray:
    """Convert pixels to uint8 [height, width, 3]. Pixels of this type and shape are not copied.

    Floats must also be levels from 0 to 255, and are rounded. Floats with a maximum above 0 and up to 1 are rejected,
    because they most likely range from 0 to 1 and would result in a black image.

    Args:
        array: The pixels.
        check_size: A function of width and height that raises ImageTooLarge.

    Raises:
        InvalidImage: The shape, type or range is wrong.
    """
    dtype = array.dtype
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        hint = ": move the channels to the end" if array.ndim == 3 and array.shape[0] == 3 else ""
        raise InvalidImage(f"pixels must be of the shape [height, width, 3], not {list(array.shape)}{hint}")
    if dtype != np.uint8 and dtype.kind != "f":
        raise InvalidImage(f"pixels must be UINT8, or floats from 0 to 255, not {dtype}")
    check_size(array.shape[1], array.shape[0])
    if dtype == np.uint8:
        return array
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # also false for NaN
        hint = ": send the pixels before normalization" if low < 0 else ""
        raise InvalidImage(f"pixels must be from 0 to 255, not from {low:g} to {high:g}{hint}")
    if 0 < high <= 1:
        raise InvalidImage(
            "pixels must be levels from 0 to 255, but the largest is at most 1; multiply the pixels by 255"
        )
    levels: np.ndarray = np.rint(array).astype(np.uint8)
    return levels
