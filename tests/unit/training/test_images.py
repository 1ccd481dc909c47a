"""Tests of the drawn images, and of the starter weights that were trained on them."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.images import (
    LABELS,
    MAX_SIDE_PIXELS,
    MIDDLE_RADIUS,
    RADIUS,
    SHORT_SIDE_PIXELS,
    draw,
    draw_image,
)
from training.shapes import SHAPES

ROOT = Path(__file__).resolve().parents[3]
STARTER = ROOT / "models" / "resnet-50" / "starter"


def test_image_depends_only_on_seed_and_index() -> None:
    again = [draw_image(5, index) for index in (3, 2, 1)]
    assert again == [draw_image(5, index) for index in (3, 2, 1)]
    files = {data for _, data in again} | {draw_image(6, 1)[1]}
    assert len(files) == 4


def test_at_least_ten_labels_are_equally_frequent() -> None:
    assert len(LABELS) == len(set(LABELS)) >= 10
    labels = [draw_image(1, index)[0] for index in range(2 * len(LABELS))]
    assert all(labels.count(label) == 2 for label in LABELS)


def test_images_are_jpegs_of_varied_sizes_and_qualities() -> None:
    sizes, tables = set(), set()
    for index in range(40):
        image = Image.open(io.BytesIO(draw_image(2, index)[1]))
        image.load()
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert SHORT_SIDE_PIXELS[0] <= min(image.size) <= SHORT_SIDE_PIXELS[1]
        assert max(image.size) <= MAX_SIDE_PIXELS
        sizes.add(image.size)
        tables.add(tuple(image.quantization[0]))  # type: ignore[attr-defined]
    assert len(sizes) > 30
    assert len(tables) > 15


@pytest.mark.parametrize("label", LABELS)
def test_drawn_image_has_the_requested_size(label: str) -> None:
    image = draw(label, np.random.default_rng(1), (200, 160))
    assert (image.mode, image.size) == ("RGB", (200, 160))
    assert np.asarray(image).std() > 1


def test_unknown_label_raises_key_error() -> None:
    with pytest.raises(KeyError):
        draw("dragon", np.random.default_rng(1), (200, 160))


@pytest.mark.parametrize("label", LABELS)
def test_shape_fits_the_unit_circle(label: str) -> None:
    for seed in range(10):
        shape = SHAPES[label](np.random.default_rng(seed)).fitted()
        reach = np.linalg.norm(np.concatenate(shape.body + shape.accents), axis=1).max()
        assert reach == pytest.approx(1)
    assert RADIUS[1] <= MIDDLE_RADIUS < 0.4375  # so it stays inside the middle square that is classified


def test_command_writes_an_image_of_the_label(tmp_path: Path) -> None:
    out = tmp_path / "heart.jpg"
    command = [
        sys.executable,
        "-m",
        "training.images",
        "--label",
        "heart",
        "--seed",
        "7",
        "--out",
        str(out),
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    assert draw_image(7, LABELS.index("heart")) == ("heart", out.read_bytes())


def test_starter_weights_are_small_and_have_the_labels() -> None:
    config = json.loads((STARTER / "config.json").read_text())
    assert [config["id2label"][str(index)] for index in range(len(LABELS))] == list(LABELS)
    assert (STARTER / "model.safetensors").stat().st_size <= 4_000_000


@pytest.mark.full
@pytest.mark.parametrize("count", [104, pytest.param(1000, marks=pytest.mark.slow)])
def test_starter_weights_classify_held_out_images(count: int) -> None:
    from training.classifier import evaluate

    assert evaluate(STARTER, count) >= 0.97


def test_starter_weights_classify_held_out_images_in_bf16() -> None:
    import torch

    from training.classifier import evaluate

    assert evaluate(STARTER, 26, torch.bfloat16) >= 0.95
