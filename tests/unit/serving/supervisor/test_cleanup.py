"""Tests of removing unused unpacked archives."""

import json
import os
import time

import pytest

from torchserve_models.serving.supervisor.cleanup import remove_unused_models


@pytest.fixture
def unpacked(tmp_path):
    def make(name, version, age):
        folder = tmp_path / "models" / name
        (folder / "MAR-INF").mkdir(parents=True)
        (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": {"modelVersion": version}}))
        os.utime(folder, (time.time() - age,) * 2)
        return folder

    return make


def test_only_old_folders_of_unregistered_versions_are_removed(tmp_path, unpacked):
    used, refused, young = unpacked("a", "1", 5000), unpacked("b", "2", 5000), unpacked("c", "3", 5)
    half = tmp_path / "models" / "half"
    half.mkdir()
    os.utime(half, (time.time() - 5000,) * 2)
    assert sorted(remove_unused_models(tmp_path, {"1"})) == sorted([refused, half])
    assert used.exists()
    assert young.exists()
    assert not refused.exists()
    assert remove_unused_models(tmp_path / "missing", ()) == []
