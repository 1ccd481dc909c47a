"""The committed sample inputs are what `training` draws with seed 7."""

import io

import numpy as np
import pytest
from PIL import Image

from torchserve_models.sample_inputs import IMAGES, REPORTS
from training.images import draw_image
from training.reports import report

SEED = 7


@pytest.mark.parametrize(("label", "index"), [("arrow", 0), ("fish", 4), ("heart", 5), ("star", 10)])
def test_sample_image_is_the_drawn_one(label, index):
    drawn_label, drawn = draw_image(SEED, index)
    assert drawn_label == label
    expected, actual = (
        np.asarray(Image.open(file), dtype=float) for file in (io.BytesIO(drawn), IMAGES[label])
    )
    assert np.abs(expected - actual).max() <= 8  # JPEG encoders differ a little


@pytest.mark.parametrize(("path", "index"), list(zip(REPORTS, (0, 6, 1), strict=True)))
def test_sample_report_is_the_written_one(path, index):
    assert path.read_text("utf-8") == report(SEED, index)[0] + "\n"
