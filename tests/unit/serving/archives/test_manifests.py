"""Tests of reading the model version from manifests."""

import json
import zipfile

import pytest

from torchserve_models.serving.archives.manifests import archive_version, folder_version

GOOD = json.dumps({"model": {"modelVersion": "1.0"}})


def archive(path, manifest, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as content:
        content.writestr("MAR-INF/MANIFEST.json", manifest)
    return path


def folder(path, manifest):
    (path / "MAR-INF").mkdir()
    (path / "MAR-INF" / "MANIFEST.json").write_text(manifest)
    return path


def test_version_is_read_from_archive_and_folder(tmp_path):
    assert archive_version(archive(tmp_path / "m.mar", GOOD)) == "1.0"
    assert folder_version(folder(tmp_path, GOOD)) == "1.0"


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"model": 1}', "[" * 100_000, "{\x00}"])
def test_manifest_without_version_is_none(tmp_path, manifest):
    assert archive_version(archive(tmp_path / "m.mar", manifest)) is None
    assert folder_version(folder(tmp_path, manifest)) is None


def test_other_file_has_no_version(tmp_path):
    (tmp_path / "m.mar").write_bytes(b"no archive")
    assert archive_version(tmp_path / "m.mar") is None
    assert archive_version(tmp_path / "absent.mar") is None
    assert archive_version(tmp_path) is None
    assert folder_version(tmp_path) is None


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_damaged_member_has_no_version(tmp_path, compression, byte):
    path = archive(tmp_path / "m.mar", GOOD * 10, compression)
    data = bytearray(path.read_bytes())
    start = 30 + len("MAR-INF/MANIFEST.json")
    data[start : start + 20] = bytes([byte]) * 20
    path.write_bytes(data)
    assert archive_version(path) is None
