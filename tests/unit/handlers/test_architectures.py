"""Comparison of classifiers of many real architectures with their libraries: answers and preprocessed pixels."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from handlers.engines.base import PREPARED_DIR
from handlers.image_classifier import ImageClassifier
from handlers.vision.preprocess import Preprocessor
from handlers.vision.preprocessing_plan import PreprocessingPlan
from tests.unit.handlers.architectures import TINYVIT_CONFIG, WRITERS, write_timm
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.sending import raw, send
from torchserve_models.packing.engines.classifier import prepare_classifier
from training.images import draw

PLANS = {
    "resnet-50": (256, "bicubic", (224, 224), "down"),
    "resnet-152": (256, "bicubic", (224, 224), "down"),
    "mit-b0": ((512, 512), "bilinear", None, "down"),
    "mobilenet-v2": (256, "bilinear", (224, 224), "down"),
    "tinyvit": (235, "bicubic", (224, 224), "even"),
    "swin": ((224, 224), "bicubic", None, "down"),
}
ENGINES = {"swin": "openvino"}
"""Models that run in OpenVINO. The others run in plain torch, because OpenVINO takes up to ten seconds to convert."""
TOLERANCE = {"tinyvit": 5e-3}
"""Tolerance of scores if Pillow resizes, because one pixel in 200 differs by a level; otherwise 1e-4 (fp32)."""
SIZES = [(640, 480), (333, 501), (237, 235), (90, 61), (1201, 160)]  # width and height


def images() -> list[Image.Image]:
    return [draw("fish", np.random.default_rng(size), size) for size in SIZES]


ARCHITECTURES = [pytest.param(name, marks=[pytest.mark.slow] * (name == "resnet-152")) for name in WRITERS]
"""Tested models, without ResNet-152, which is ResNet-50 with more layers and takes a quarter of the total time."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return a model's name and its folder with the files that packing prepares."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    WRITERS[request.param](folder)
    facts = prepare_classifier(folder, folder / PREPARED_DIR, ENGINES.get(request.param, "torch"))
    assert "none" not in facts.get("openvino", {})
    return request.param, folder


@pytest.mark.full
def test_answers_equal_those_of_the_library(model: tuple[str, Path]) -> None:
    name, folder = model
    engine = ENGINES.get(name, "torch")
    context = FakeContext(folder.parent, {"handler": {"precision": "fp32", "engine": engine, "max_batch": 2}})
    handler = ImageClassifier()
    handler.initialize(context)
    assert handler.describe()["engine"] == engine
    two_images = images()[:2]
    files = [png(image) for image in two_images]
    answers, _ = send(handler, context, *map(raw, files))
    network = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    pixels = AutoImageProcessor.from_pretrained(folder)(images=two_images, return_tensors="pt")[
        "pixel_values"
    ]
    with torch.inference_mode():
        scores = network(pixel_values=pixels).logits.softmax(-1)
    for answer, row in zip(answers, scores, strict=True):
        best = row.topk(5)
        assert [label["label"] for label in answer] == [
            network.config.id2label[int(index)] for index in best.indices
        ]
        assert [label["score"] for label in answer] == pytest.approx(
            best.values.tolist(), abs=TOLERANCE.get(name, 1e-4)
        )


def test_pixels_equal_those_of_the_library(model: tuple[str, Path]) -> None:
    name, folder = model
    preprocessor = Preprocessor(folder)
    plan = preprocessor.plan
    assert plan is not None
    assert (plan.resize, plan.resample, plan.crop, plan.rounding) == PLANS[name]
    processor = AutoImageProcessor.from_pretrained(folder)
    for image in images():
        expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
        most, mean = pixel_differences(plan, image, expected)
        if name == "tinyvit":  # resized by Pillow
            assert most < 2.01
            assert mean < 0.05
        else:  # the library uses the same code
            assert most < 0.01


def test_tinyvit_has_pixels_of_timm_and_labels_of_imagenet_22k(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from timm.data import ImageNetInfo, create_transform, resolve_data_config

    folder = tmp_path_factory.mktemp("timm")
    write_timm(folder, TINYVIT_CONFIG)
    prepare_classifier(folder, folder / PREPARED_DIR, "torch")
    plan = PreprocessingPlan.read(folder / PREPARED_DIR / "preprocess.json")
    transform = create_transform(**resolve_data_config(TINYVIT_CONFIG["pretrained_cfg"]), is_training=False)
    for image in images():
        most, mean = pixel_differences(plan, image, transform(image))
        assert most < 2.01
        assert mean < 0.05
    labels = json.loads((folder / PREPARED_DIR / "labels.json").read_text())
    known = ImageNetInfo("imagenet-22k")
    assert len(labels) == 21841
    assert labels[0] == known.index_to_description(0)
    assert labels[21840] == known.index_to_description(21840)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def pixel_differences(
    plan: PreprocessingPlan, image: Image.Image, expected: torch.Tensor
) -> tuple[float, float]:
    """Return the maximum and mean difference of the plan's pixels from the expected ones, in levels (0 to 255)."""
    scale, mean, std = plan.normalization
    levels = (expected.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)) / scale
    pixels = plan(np.array(image))
    assert pixels.shape == levels.shape
    difference = (pixels - levels).abs()
    return float(difference.max()), float(difference.mean())
