"""The second version of an archive."""

import json
import os
import zipfile

from benchmarks.chaos.faults import SECOND_VERSION, second_archive
from tests.faults.toys import toy


def version(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"]


def test_the_second_version_is_the_same_archive_under_another_version(tmp_path):
    toy(tmp_path, "first")
    path = tmp_path / second_archive(tmp_path, "first")
    assert version(path) == SECOND_VERSION != version(tmp_path / "first.mar")
    with zipfile.ZipFile(path) as copy, zipfile.ZipFile(tmp_path / "first.mar") as original:
        assert copy.namelist() == original.namelist()
        assert copy.read("toy.py") == original.read("toy.py")


def test_it_is_made_again_only_after_the_first_one_was(tmp_path):
    toy(tmp_path, "first")
    path = tmp_path / second_archive(tmp_path, "first")
    os.utime(path, (4e9, 4e9))
    second_archive(tmp_path, "first")
    assert path.stat().st_mtime == 4e9
    os.utime(tmp_path / "first.mar", (4.1e9, 4.1e9))
    second_archive(tmp_path, "first")
    assert path.stat().st_mtime != 4e9
