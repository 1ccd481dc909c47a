"""A starter and a small network as an archive holds them: prepared, and calibrated with drawn images."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from handlers.core.device import Device
from handlers.engines.base import PREPARED
from handlers.engines.prepare import prepare_classifier
from handlers.vision.types import InputSpec, Normalization
from tests.conftest import ROOT
from training.images import draw_image

STARTER = ROOT / "models" / "resnet-50" / "starter"
NORMALIZATION = Normalization(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SPEC = InputSpec(224, 224, NORMALIZATION)
SMALL = InputSpec(64, 64, NORMALIZATION)
FP32 = Device(torch.device("cpu"), torch.float32, 2)
BF16 = Device(torch.device("cpu"), torch.bfloat16, 2)


def levels(spec: InputSpec, count: int) -> torch.Tensor:
    """That many images of noise, as the engines get them."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, spec.height, spec.width, 3), dtype=torch.uint8, generator=generator)


def write_images(folder: Path, seed: int, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{index:04}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(draw_image(seed, index)[1])
    return paths


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet of two blocks with random weights, for images of 64 x 64; nothing is prepared."""
    folder = tmp_path_factory.mktemp("small") / "model"
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_labels=7)
    network = ResNetForImageClassification(config).eval()
    with torch.no_grad():  # else all logits are nearly the same
        network.classifier[1].weight.mul_(20)
    network.save_pretrained(folder)
    text = (STARTER / "preprocessor_config.json").read_text()
    (folder / "preprocessor_config.json").write_text(text.replace("224", "64"))
    return folder


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter as packing makes it with --calibrate."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(STARTER, folder)
    images = write_images(folder.parent / "images", seed=5, count=200)
    prepare_classifier(STARTER, folder / PREPARED, images=images)
    return folder
