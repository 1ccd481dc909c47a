"""Helpers that run the classifier's handler in this process and compare its answers with those of transformers."""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageClassification

from handlers.image_classifier import ImageClassifier
from handlers.vision.decode import to_rgb
from tests.conftest import ROOT
from tests.unit.handlers.context import FakeContext

STARTER = ROOT / "models" / "resnet-50" / "starter"


def start_classifier(folder: Path, tmp_path: Path, **settings) -> tuple[ImageClassifier, FakeContext]:
    (tmp_path / "model").symlink_to(folder)
    context = FakeContext(tmp_path, {"handler": {"precision": "fp32"} | settings})
    handler = ImageClassifier()
    handler.initialize(context)
    return handler, context


@lru_cache(maxsize=2)
def _load(folder: Path) -> tuple[Any, Any]:
    """Return transformers' processor and model of a folder, in fp32."""
    model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return AutoImageProcessor.from_pretrained(folder), model


def transformers_scores(folder: Path, image: Image.Image) -> list[tuple[str, float]]:
    """Return all labels by score from transformers' processor and model in fp32."""
    processor, model = _load(folder)
    pixels = processor(images=image, return_tensors="pt")
    with torch.inference_mode():
        scores = model(**pixels).logits.softmax(-1)[0]
    named = [(model.config.id2label[index], score) for index, score in enumerate(scores.tolist())]
    return sorted(named, key=lambda pair: -pair[1])


def assert_equal_to_transformers(answer, folder, data: bytes, tolerance: float = 1e-3) -> None:
    image = to_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    expected_labels = transformers_scores(folder, image)
    scores = dict(expected_labels)
    assert len({item["label"] for item in answer}) == 5
    for got, (_, score) in zip(answer, expected_labels[:5], strict=True):
        assert got["score"] == pytest.approx(score, abs=tolerance)
        assert got["score"] == pytest.approx(scores[got["label"]], abs=tolerance)
