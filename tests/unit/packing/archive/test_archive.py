"""Archive files are reproducible and written atomically."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.packing.conftest import ROOT, Bench
from torchserve_models.packing import errors, read_provenance
from torchserve_models.packing.archive import archiver, mar_file
from torchserve_models.packing.archive.mar_file import ArchiveMember

COMMAND = """
import sys
from pathlib import Path
from torchserve_models.cli import main
from torchserve_models.packing import models
models.LAYOUT = models.RepositoryLayout(Path(sys.argv[1]))
sys.exit(main(["pack", *sys.argv[2:]]))
"""


def run(
    bench: Bench, *arguments: str, prefix: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process."""
    command = [sys.executable, "-c", prefix + COMMAND, str(bench.layout.root), *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.full
def test_same_inputs_produce_the_same_file(bench: Bench) -> None:
    first = bench.pack(weights="starter")
    assert not first.unchanged
    again = bench.pack(weights="starter")
    assert again.unchanged
    first.path.unlink()
    anew = bench.pack(weights="starter")
    assert not anew.unchanged
    assert first.sha256 == again.sha256 == anew.sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert first.version == anew.version


def test_archive_does_not_depend_on_clock_umask_locale_or_folder(bench: Bench, tmp_path: Path) -> None:
    here = bench.pack(weights="starter")
    elsewhere = tmp_path / "else where, ünd"
    shutil.copytree(bench.layout.root, elsewhere / "root", copy_function=shutil.copyfile)
    for path in elsewhere.rglob("*"):
        os.utime(path, (1, 1))
    other = Bench(type(bench.layout)(elsewhere / "root"), elsewhere / "store")
    done = run(
        other,
        *("small-net", "--weights", "starter", "--store", str(other.store)),
        prefix="import os; os.umask(0o077)\n",
        TZ="Asia/Kathmandu",
        LC_ALL="C",
        PYTHONHASHSEED="1",
        SOURCE_DATE_EPOCH="1",
    )
    assert done.returncode == 0, done.stderr
    assert here.sha256 in done.stdout
    assert (other.store / "small-net.mar").read_bytes() == here.path.read_bytes()


def test_archive_has_weights_handlers_manifest_and_provenance(bench: Bench) -> None:
    packed = bench.pack(weights="starter")
    with zipfile.ZipFile(packed.path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        manifest = json.loads(archive.read(archiver.MANIFEST))
        assert (
            archive.read("image_classifier.py")
            == (bench.layout.handlers / "image_classifier.py").read_bytes()
        )
        infos = archive.infolist()
        for member, digest in read_provenance(packed.path).files.items():
            assert hashlib.sha256(archive.read(member)).hexdigest() == digest
    assert names == sorted(names)
    assert len(names) == len(set(names))
    assert {"handlers/__init__.py", "handlers/core/handler.py", "model/config.json"} < set(names)
    assert not [name for name in names if "__pycache__" in name or ".." in name or name.startswith("/")]
    assert {info.external_attr >> 16 for info in infos} == {0o100644}
    assert manifest["model"] == {
        "modelName": "small-net",
        "modelVersion": packed.version,
        "handler": "image_classifier.py",
        "configFile": "model-config.yaml",
    }
    assert manifest["createdOn"] == "01/01/1980 00:00:00"
    provenance = read_provenance(packed.path)
    assert (provenance.name, provenance.version, provenance.weights) == (
        "small-net",
        packed.version,
        "starter",
    )
    assert (provenance.engine, provenance.license) == ("auto", "apache-2.0")
    assert {"torch", "transformers", "torchserve"} <= set(provenance.libraries)


def test_changed_handler_changes_the_version(bench: Bench) -> None:
    first = bench.pack(weights="starter")
    entry = bench.layout.handlers / "image_classifier.py"
    entry.write_text(entry.read_text() + "# changed\n")
    second = bench.pack(weights="starter")
    assert second.version != first.version
    assert second.sha256 != first.sha256


@pytest.mark.parametrize("spoil", [b"\0", b"", b"PK\x05\x06" + b"\0" * 18], ids=["cut", "empty", "empty zip"])
def test_damaged_archive_is_replaced(bench: Bench, spoil: bytes) -> None:
    first = bench.pack(weights="starter")
    first.path.write_bytes(spoil)
    again = bench.pack(weights="starter")
    assert again.sha256 == first.sha256
    assert not again.unchanged


def test_archive_with_flipped_bit_is_replaced(bench: Bench) -> None:
    first = bench.pack(weights="starter")
    data = bytearray(first.path.read_bytes())
    data[data.index(b"ResNetForImageClassification")] ^= 1
    first.path.write_bytes(data)
    again = bench.pack(weights="starter")
    assert not again.unchanged
    assert again.sha256 == first.sha256


def flipped(offset: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


@pytest.mark.parametrize(
    "alter",
    [
        lambda data: b"junk" + data,
        lambda data: data + b"junk",
        lambda data: data[:-2] + b"\4\0junk",
        flipped(6),
        flipped(10),
        lambda data: flipped(data.index(b"PK\1\2") + 8)(data),
        lambda data: flipped(data.index(b"PK\1\2") + 36)(data),
    ],
    ids=["before", "after", "comment", "flag", "time", "flag in the directory", "attribute in the directory"],
)
def test_archive_with_changed_metadata_is_replaced(bench: Bench, alter: Callable[[bytes], bytes]) -> None:
    first = bench.pack(weights="starter")
    first.path.write_bytes(alter(first.path.read_bytes()))
    again = bench.pack(weights="starter")
    assert not again.unchanged
    assert again.sha256 == first.sha256


def test_full_disk_leaves_the_store_unchanged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.pack(weights="starter")
    entry = bench.layout.handlers / "image_classifier.py"
    entry.write_text(entry.read_text() + "# changed\n")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mar_file.os, "fsync", full)
    with pytest.raises(errors.DiskFull, match="No space left"):
        bench.pack(weights="starter")
    assert hashlib.sha256(first.path.read_bytes()).hexdigest() == first.sha256
    assert bench.leftovers() == []


def test_exceeded_file_size_limit_is_reported(bench: Bench, tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the writes of a real process fail at 40 kB, in the middle of the archive."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
    done = run(
        bench,
        *("small-net", "--weights", "starter", "--store", str(bench.store)),
        prefix=limit,
        TMPDIR=str(temporary),
    )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(bench.store.iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_insufficient_space_is_detected_before_writing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(bench.layout.root)._replace(free=1000)
    monkeypatch.setattr(mar_file.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(errors.DiskFull, match="The archive needs"):
        bench.pack(weights="starter")
    assert list(bench.store.iterdir()) == []


def test_file_as_store_is_rejected(bench: Bench, tmp_path: Path) -> None:
    bench.store.write_text("a file")
    with pytest.raises(errors.PackingError, match="model store"):
        bench.pack(weights="starter")


def test_file_change_during_packing_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"later")
    member = ArchiveMember("model/weights", path, 5, hashlib.sha256(b"first").hexdigest())
    with pytest.raises(errors.ChecksumMismatch, match="changed while"):
        mar_file.write(tmp_path / "x.mar", [member])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["weights"]


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/root", "a\\b", "", "a\0b"])
def test_member_outside_the_archive_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.InvalidArchive, match="not a valid member name"):
        mar_file.write(tmp_path / "x.mar", [ArchiveMember.of_bytes(name, b"")])
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_a_killed_pack_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".net.mar.00000000.tmp").write_bytes(b"half")
    mar_file.write(tmp_path / "net.mar", [ArchiveMember.of_bytes("a", b"b")])
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.mar"]


def test_concurrent_packs_of_one_name_are_serialized(tmp_path: Path) -> None:
    """A pipe blocks the first pack in the middle of its write until the second one waits for the lock."""
    path, pipe = tmp_path / "store" / "net.mar", tmp_path / "pipe"
    os.mkfifo(pipe)
    slow = ArchiveMember("a", pipe, 5, hashlib.sha256(b"first").hexdigest())
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(mar_file.write, path, [slow])
        with pipe.open("wb") as content:  # opens once the first pack reads it
            second = pool.submit(mar_file.write, path, [ArchiveMember.of_bytes("a", b"second")])
            with pytest.raises(TimeoutError):
                second.result(0.3)
            assert not path.exists()
            content.write(b"first")
        first.result(30)
        second.result(30)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with zipfile.ZipFile(path) as archive:
        assert archive.read("a") == b"second"


def test_failure_of_the_archiver_is_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(archiver.tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(archiver, "MODEL_CONFIG", "no/such/folder.yaml")
    with pytest.raises(errors.PackingError):
        archiver.stage_members("net", "1", "entry.py", b"", {"entry.py": b""})
    assert not list(temporary.iterdir())
