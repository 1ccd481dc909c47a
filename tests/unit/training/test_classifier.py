"""Tests of the classifier's training: its input pixels, batches, held-out data and saved model."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, ResNetForImageClassification

from training import classifier
from training.images import draw_image


def test_training_pixels_equal_those_of_the_image_processor(tmp_path: Path) -> None:
    classifier.save(classifier.network(), tmp_path)
    processor: Any = AutoImageProcessor.from_pretrained(tmp_path)
    data = draw_image(4, 0)[1]
    image = Image.open(io.BytesIO(data))
    plain = processor(image, return_tensors="np", do_normalize=False, do_rescale=False)["pixel_values"][0]
    wide = classifier._middle(data, 233).astype(np.float32)
    middle = wide[4:228, 4:228].transpose(2, 0, 1)
    assert plain.shape == middle.shape
    assert np.abs(plain - middle).mean() < 8  # the noise of single pixels moves, the image does not


def test_saved_network_is_fp16_and_loads_as_fp32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = classifier.network().eval()
    classifier.save(model, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 4_000_000
    loaded = ResNetForImageClassification.from_pretrained(tmp_path).eval()
    pixels = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        before, after = model(pixels).logits, loaded(pixels).logits
    assert after.dtype == torch.float32
    assert torch.allclose(before, after, atol=0.02, rtol=0.02)


def test_batches_keep_images_and_labels_together() -> None:
    plan = classifier.Plan(images=26, batch=8, stages=((32, 2),))
    drawn = [bytes_ for _, bytes_ in (draw_image(3, index) for index in range(26))]
    batches = list(classifier._batches(plan, drawn))
    assert len(batches) == plan.steps == 6
    pool = np.stack([classifier._middle(data, round(32 * classifier.WIDER)) for data in drawn])
    brightness = torch.from_numpy(pool).float().mean(dim=(1, 2, 3))
    for pixels, labels in batches:
        assert pixels.shape == (8, 3, 32, 32)
        # Mirroring and permuting colors keep the brightness, which identifies the images of a label.
        for mean, label in zip(pixels.float().mean(dim=(1, 2, 3)), labels.tolist(), strict=True):
            assert (brightness[label::13] - mean).abs().min() < 3


def test_held_out_seed_is_rejected_for_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = ["classifier", "--out", str(tmp_path), "--seed", str(classifier.HELD_OUT_SEED)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match="2"):
        classifier.main()
    assert list(tmp_path.iterdir()) == []
