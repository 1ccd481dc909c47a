"""Tests that the committed sample inputs equal the inputs that `training` draws with seed 7."""

import io

import numpy as np
import pytest
from PIL import Image

from torchserve_models.sample_inputs import IMAGES, REPORTS
from training.images import draw_image
from training.reports import draw_example

SEED = 7


@pytest.mark.parametrize(("label", "index"), [("arrow", 0), ("fish", 4), ("heart", 5), ("star", 10)])
def test_sample_image_equals_the_drawn_image(label, index):
    drawn_label, drawn = draw_image(SEED, index)
    assert drawn_label == label
    expected, actual = (
        np.asarray(Image.open(file), dtype=float) for file in (io.BytesIO(drawn), IMAGES[label])
    )
    assert np.abs(expected - actual).max() <= 8  # JPEG encoders differ a little


@pytest.mark.parametrize(("path", "index"), list(zip(REPORTS, (0, 6, 1), strict=True)))
def test_sample_report_equals_the_drawn_report(path, index):
    assert path.read_text("utf-8") == draw_example(SEED, index)[0] + "\n"
