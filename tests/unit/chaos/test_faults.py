"""Tests of version replacement and of the archive copies for it."""

import json
import os
import zipfile
from types import SimpleNamespace

import pytest

from tests.chaos.faults import copy_archive, replace_version
from tests.faults.toys import toy


def version(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"]


def test_archive_copy_differs_only_in_its_version(tmp_path):
    toy(tmp_path, "first")
    path = tmp_path / copy_archive(tmp_path, "first", "chaos-1")
    assert version(path) == "chaos-1" != version(tmp_path / "first.mar")
    with zipfile.ZipFile(path) as copy, zipfile.ZipFile(tmp_path / "first.mar") as original:
        assert copy.namelist() == original.namelist()
        assert copy.read("toy.py") == original.read("toy.py")


def test_archive_copy_is_updated_only_if_the_original_is_newer(tmp_path):
    toy(tmp_path, "first")
    path = tmp_path / copy_archive(tmp_path, "first", "chaos-1")
    os.utime(path, (4e9, 4e9))
    copy_archive(tmp_path, "first", "chaos-1")
    assert path.stat().st_mtime == 4e9
    os.utime(tmp_path / "first.mar", (4.1e9, 4.1e9))
    copy_archive(tmp_path, "first", "chaos-1")
    assert path.stat().st_mtime != 4e9


class FakeManagement:
    def __init__(self, store, *versions):
        self.store = store
        self.versions = list(versions)

    def describe_versions(self, _name):
        return [SimpleNamespace(version=version) for version in self.versions]

    def describe(self, _name):
        return SimpleNamespace(version=self.versions[0])

    def replace_model(self, _name, archive, *, workers):
        assert workers == 1
        new = version(self.store / archive)
        assert new not in self.versions  # TorchServe answers 409
        self.versions[0] = new

    def unregister(self, _name, old):
        self.versions.remove(old)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["1.0"], "chaos-1"),
        (["chaos-1"], "chaos-2"),
        (["chaos-2"], "chaos-1"),
        (["1.0", "chaos-1"], "chaos-2"),  # interrupted before the default version was set
        (["chaos-1", "1.0"], "chaos-2"),  # interrupted before the old version was removed
    ],
)
def test_replacement_registers_a_new_version_and_removes_all_others(tmp_path, before, after):
    toy(tmp_path, "m")
    management = FakeManagement(tmp_path, *before)
    assert replace_version(management, tmp_path, "m") == after
    assert management.versions == [after]
