"""Fixtures of the preparation tests."""

from pathlib import Path

import pytest

from tests.unit.handlers.classifiers import write_small_resnet


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet of two blocks with random weights, for images of 64 x 64."""
    return write_small_resnet(tmp_path_factory.mktemp("small") / "model")
