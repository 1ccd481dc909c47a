"""The drawn images, and the starter weights that learned from them."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.images import KEPT, LABELS, LONGEST, RADIUS, SHORT_SIDE, draw, draw_image
from training.shapes import SHAPES

ROOT = Path(__file__).resolve().parents[3]
STARTER = ROOT / "models" / "resnet-50" / "starter"


def test_a_image_depends_on_its_seed_and_number_alone() -> None:
    again = [draw_image(5, index) for index in (3, 2, 1)]
    assert again == [draw_image(5, index) for index in (3, 2, 1)]
    files = {data for _, data in again} | {draw_image(6, 1)[1]}
    assert len(files) == 4


def test_labels_are_ten_or_more_and_come_equally_often() -> None:
    assert len(LABELS) == len(set(LABELS)) >= 10
    labels = [draw_image(1, index)[0] for index in range(2 * len(LABELS))]
    assert all(labels.count(label) == 2 for label in LABELS)


def test_images_are_jpegs_of_varied_sizes_and_qualities() -> None:
    sizes, tables = set(), set()
    for index in range(40):
        image = Image.open(io.BytesIO(draw_image(2, index)[1]))
        image.load()
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert SHORT_SIDE[0] <= min(image.size) <= SHORT_SIDE[1]
        assert max(image.size) <= LONGEST
        sizes.add(image.size)
        tables.add(tuple(image.quantization[0]))  # type: ignore[attr-defined]
    assert len(sizes) > 30
    assert len(tables) > 15


@pytest.mark.parametrize("label", LABELS)
def test_draw_fills_the_size_that_was_asked_for(label: str) -> None:
    image = draw(label, np.random.default_rng(1), (200, 160))
    assert (image.mode, image.size) == ("RGB", (200, 160))
    assert np.asarray(image).std() > 1


def test_an_unknown_label_is_an_error() -> None:
    with pytest.raises(KeyError):
        draw("dragon", np.random.default_rng(1), (200, 160))


@pytest.mark.parametrize("label", LABELS)
def test_a_shape_fits_the_unit_circle(label: str) -> None:
    for seed in range(10):
        shape = SHAPES[label](np.random.default_rng(seed)).fitted()
        reach = np.linalg.norm(np.concatenate(shape.body + shape.accents), axis=1).max()
        assert reach == pytest.approx(1)
    assert RADIUS[1] <= KEPT < 0.4375  # so it stays inside the middle square that is classified


def test_the_command_writes_the_image_of_that_label(tmp_path: Path) -> None:
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


def test_the_starter_is_small_and_knows_the_labels() -> None:
    config = json.loads((STARTER / "config.json").read_text())
    assert [config["id2label"][str(index)] for index in range(len(LABELS))] == list(LABELS)
    assert (STARTER / "model.safetensors").stat().st_size <= 4_000_000


@pytest.mark.full
def test_the_starter_labels_held_out_images() -> None:
    from training.classifier import evaluate

    assert evaluate(STARTER, 1000) >= 0.97


def test_the_starter_labels_held_out_images_in_bf16() -> None:
    import torch

    from training.classifier import evaluate

    assert evaluate(STARTER, 26, torch.bfloat16) >= 0.95
