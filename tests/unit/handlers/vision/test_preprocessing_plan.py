"""Tests of preprocessing plans."""

import json

import numpy as np
import pytest
import torch

from handlers.engines.image.types import InputSpec, Normalization
from handlers.vision.preprocessing_plan import PreprocessingPlan

IMAGENET = Normalization(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng((height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_very_long_image_takes_little_memory():
    plan = PreprocessingPlan(256, "bicubic", (224, 224), IMAGENET)
    middle = random_image(3, 24)
    for axis in (0, 1):
        image = np.zeros((3, 200_000, 3), np.uint8)  # at a height of 256 that would be 13 GB
        image[:, 99_988:100_012] = middle
        image, expected = (array.swapaxes(0, 1) if axis else array for array in (image, middle))
        assert (plan(image).int() - plan(expected).int()).abs().max() <= 2


def test_read_only_or_noncontiguous_pixels_are_accepted():
    plan = PreprocessingPlan(40, "bilinear", (32, 32), IMAGENET)
    image = random_image(50, 60)
    expected = plan(image)
    image.flags.writeable = False
    assert torch.equal(plan(image), expected)
    assert torch.equal(plan(np.asfortranarray(image)), expected)


@pytest.mark.parametrize(
    "plan",
    [
        PreprocessingPlan(256, "bicubic", (224, 200), IMAGENET),
        PreprocessingPlan((224, 200), "bilinear", None, IMAGENET),
        PreprocessingPlan(None, "lanczos", (224, 200), IMAGENET),
        PreprocessingPlan(
            (256, 240),
            "bicubic",
            (224, 200),
            IMAGENET,
            "even",
            "contain",
            "pillow",
            (124, 116, 104),
            bgr=True,
        ),
    ],
)
def test_written_plan_is_read_back(plan, tmp_path):
    plan.write(tmp_path / "preprocess.json")
    assert PreprocessingPlan.read(tmp_path / "preprocess.json") == plan
    assert plan.spec == InputSpec(224, 200, IMAGENET)


def test_plan_of_older_versions_is_read(tmp_path):
    values = {
        "resize": 256,
        "resample": "bicubic",
        "crop": [224, 200],
        "normalization": IMAGENET._asdict(),
        "rounding": "even",
    }
    (tmp_path / "preprocess.json").write_text(json.dumps(values))
    expected = PreprocessingPlan(256, "bicubic", (224, 200), IMAGENET, "even")
    assert PreprocessingPlan.read(tmp_path / "preprocess.json") == expected


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (
            PreprocessingPlan(256, "bicubic", (224, 200), IMAGENET),
            "bicubic resize of the shorter edge to 256, center crop to 224 x 200",
        ),
        (PreprocessingPlan((224, 200), "bilinear", None, IMAGENET), "bilinear resize to 224 x 200"),
        (
            PreprocessingPlan((9, 8), "bilinear", (7, 7), IMAGENET, fit="contain", bgr=True),
            "bilinear resize to fit into 9 x 8, center crop to 7 x 7, BGR",
        ),
        (PreprocessingPlan(None, "lanczos", (224, 200), IMAGENET), "center crop to 224 x 200"),
    ],
)
def test_description_names_the_steps(plan, text):
    assert plan.describe() == text


def test_files_are_decoded_at_full_size_for_the_nearest_pixel():
    assert PreprocessingPlan(256, "bicubic", (224, 200), IMAGENET).min_size == (512, 512)
    assert PreprocessingPlan(256, "nearest-exact", (224, 200), IMAGENET).min_size is None
