"""Fixtures for all unit tests."""

import shutil
import subprocess
from collections.abc import Generator, Iterator
from itertools import product
from pathlib import Path

import pytest
from coverage import Coverage

from tests.cached_folder import cached_folder
from tests.conftest import ROOT
from tests.unit.cached_compiler import create_cached_compiler
from tests.unit.preloaded import PreloadedPython

STARTER = ROOT / "models" / "resnet-50" / "starter"
ENGINE_SOURCES = [
    STARTER,
    *(ROOT / name for name in ("handlers/engines", "handlers/vision", "torchserve_models/packing/engines")),
]
"""What decides the files that packing makes for the starter of ResNet-50."""


@pytest.fixture(scope="session")
def preloaded_python() -> Iterator[PreloadedPython]:
    with PreloadedPython() as python:
        yield python


@pytest.fixture
def forked_modules(preloaded_python: PreloadedPython, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `subprocess.run` of a Python module a fork of a process that has imported the large libraries."""
    monkeypatch.setattr(subprocess, "run", preloaded_python.run)


@pytest.fixture(scope="session")
def cached_compiler(pytestconfig: pytest.Config) -> Path | None:
    """A folder for PATH with a `g++` that compiles the same code once. None without g++."""
    return create_cached_compiler(pytestconfig)


@pytest.fixture(scope="session")
def prepared_starter(pytestconfig: pytest.Config) -> Path:
    """The starter of ResNet-50 as its archive holds it."""
    from handlers.engines.base import PREPARED_DIR
    from torchserve_models.packing.engines.classifier import prepare_classifier

    def make(folder: Path) -> None:
        shutil.copytree(STARTER, folder / "model")
        prepare_classifier(STARTER, folder / "model" / PREPARED_DIR)

    return cached_folder(pytestconfig, "starter", ENGINE_SOURCES, ["torch", "openvino"], make) / "model"


@pytest.fixture(scope="session")
def calibrated_mobilenet(pytestconfig: pytest.Config, shared_data: Path) -> Path:
    """MobileNetV2 with real ImageNet weights and the files that packing prepares with --calibrate.

    Calibration uses large parts of photos without labels.
    """
    from handlers.engines.base import PREPARED_DIR
    from tests.real_models import labeled_photos, mobilenet_folder
    from torchserve_models.packing.engines.classifier import prepare_classifier

    def make(folder: Path) -> None:
        labeled = {path for path, _ in labeled_photos(shared_data)}
        tiles = folder / "tiles"
        tiles.mkdir()
        for path in sorted((shared_data / "photos").glob("pil_*.[jmw]*")):
            if path not in labeled and "truncated" not in path.name:
                _write_tiles(path, tiles)
        model = mobilenet_folder(shared_data, folder / "model")
        prepare_classifier(model, model / PREPARED_DIR, images=sorted(tiles.iterdir()))

    sources = [*ENGINE_SOURCES[1:], Path(__file__), ROOT / "tests" / "real_models.py", shared_data / "photos"]
    sources.append(shared_data / "weights" / "mobilenet_v2_imagenet.safetensors")
    packages = ["torch", "openvino", "nncf"]
    return cached_folder(pytestconfig, "mobilenet", sources, packages, make) / "model"


def _write_tiles(path: Path, folder: Path) -> None:
    """Write four overlapping parts of a photo."""
    from PIL import Image

    with Image.open(path) as file:
        photo = file.convert("RGB")
    side = min(photo.size) * 3 // 4
    for index, (row, column) in enumerate(product(range(2), repeat=2)):
        left, top = (photo.width - side) * column, (photo.height - side) * row
        photo.crop((left, top, left + side, top + side)).save(folder / f"{path.name}-{index}.png")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure no coverage of tests that take long: measuring doubles the time in which torch traces a network."""
    coverage = Coverage.current()
    is_paused = coverage is not None and item.get_closest_marker("full") is not None
    if is_paused:
        coverage.stop()
    try:
        return (yield)
    finally:
        if is_paused:
            coverage.start()
