"""Fixtures: a small network, and a starter that is calibrated with generated images."""

import shutil
from pathlib import Path

import pytest
import torch

from handlers.core.device import Device
from handlers.engines.base import PREPARED_DIR
from handlers.engines.image.types import InputSpec, Normalization
from tests.cached_folder import cached_folder
from tests.unit.conftest import ENGINE_SOURCES
from tests.unit.handlers.classifiers import STARTER, write_images, write_small_resnet
from torchserve_models.packing.engines.classifier import prepare_classifier

NORMALIZATION = Normalization(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SPEC = InputSpec(224, 224, NORMALIZATION)
SMALL = InputSpec(64, 64, NORMALIZATION)
FP32 = Device(torch.device("cpu"), torch.float32, 2)
CALIBRATION_IMAGES = 100
BF16 = Device(torch.device("cpu"), torch.bfloat16, 2)


def levels(spec: InputSpec, count: int) -> torch.Tensor:
    """Return `count` images of noise in the input format of the engines."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, spec.height, spec.width, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet of two blocks with random weights, for images of 64 x 64, without prepared files."""
    return write_small_resnet(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="session")
def converted(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network `small` with the files that packing prepares: converting it at each load takes a second."""
    folder = tmp_path_factory.mktemp("converted") / "model"
    shutil.copytree(small, folder)
    prepare_classifier(small, folder / PREPARED_DIR, "openvino")
    return folder


@pytest.fixture(scope="session")
def calibrated(pytestconfig: pytest.Config) -> Path:
    """The starter with the files that packing prepares with --calibrate."""

    def make(folder: Path) -> None:
        shutil.copytree(STARTER, folder / "model")
        images = write_images(folder / "images", seed=5, count=CALIBRATION_IMAGES)
        prepare_classifier(STARTER, folder / "model" / PREPARED_DIR, images=images)

    sources = [*ENGINE_SOURCES, Path(__file__)]
    return cached_folder(pytestconfig, "calibrated", sources, ["torch", "openvino", "nncf"], make) / "model"
