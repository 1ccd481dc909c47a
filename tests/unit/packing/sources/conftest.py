"""Fixture: a copy of a model folder."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, resnet_folder: Path) -> Path:
    """A modifiable copy of the model, in a folder whose name has spaces and special characters."""
    return Path(shutil.copytree(resnet_folder, tmp_path / "mein Netz, größer*[1]"))
