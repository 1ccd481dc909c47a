"""Tests of validating pixels that are sent as numbers."""

import numpy as np
import pytest

from handlers.core.errors import ImageTooLarge, InvalidImage
from handlers.vision.decode import decode_image

LEVELS = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3) * 4


def test_uint8_pixels_are_not_copied():
    assert decode_image(LEVELS, 100) is LEVELS


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_float_pixels_are_rounded_to_levels(kind):
    assert (decode_image(LEVELS.astype(kind), 100) == LEVELS).all()
    assert (decode_image(LEVELS.astype(kind) + 0.4, 100) == LEVELS).all()
    assert decode_image(np.zeros((2, 2, 3), kind), 100).max() == 0


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (LEVELS.astype("float32") / 255, "multiply the pixels by 255"),
        (LEVELS.astype("float32") - 1, "not from -1 to 235: send the pixels before normalization"),
        (LEVELS.astype("float32") + 30, "from 0 to 255, not from 30 to 266"),
        (np.full((2, 2, 3), np.nan, "float32"), "from 0 to 255, not from nan"),
        (np.full((2, 2, 3), np.inf, "float32"), "from 0 to 255, not from inf"),
        (LEVELS.astype("uint16"), "must be UINT8, or floats"),
        (LEVELS.astype("bool"), "must be UINT8, or floats"),
        (LEVELS.transpose(2, 0, 1), r"\[height, width, 3\], not \[3, 5, 4\]: move the channels to the end"),
        (LEVELS[:, :, 0], r"\[height, width, 3\], not \[5, 4\]"),
        (LEVELS[:0], r"\[height, width, 3\], not \[0, 4, 3\]"),
    ],
)
def test_ambiguous_or_invalid_pixels_are_rejected(pixels, message):
    with pytest.raises(InvalidImage, match=message):
        decode_image(pixels, 100)


def test_size_is_checked_before_pixels_are_rounded():
    with pytest.raises(ImageTooLarge):
        decode_image(LEVELS.astype("float32"), 19)
