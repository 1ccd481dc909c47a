"""The lock file: pinned commits, and entries that are rejected."""

import json
import zipfile
from pathlib import Path

import pytest

from tests.unit.packing.conftest import HUB_ID, Bench, content_of
from tests.unit.packing.fake_hub import FakeHub, oid_of
from tests.unit.packing.sources.hub_repository import WEIGHTS, lock_of
from torchserve_models.packing import errors, read_provenance


@pytest.mark.full
def test_first_pack_locks_the_latest_commit(bench: Bench, fake_hub: FakeHub, resnet_folder: Path) -> None:
    packed = bench.pack(weights="pretrained")
    head = fake_hub.repositories[HUB_ID].head
    entry = lock_of(bench)[HUB_ID]
    assert entry["revision"] == head
    assert set(entry["files"]) == {"config.json", WEIGHTS, "preprocessor_config.json"}
    for name, file in entry["files"].items():
        assert file["oid"] == oid_of(name, (resnet_folder / name).read_bytes())
    provenance = read_provenance(packed.path)
    assert (provenance.weights, provenance.source, provenance.revision) == ("pretrained", HUB_ID, head)
    assert provenance.license == "mit"
    assert packed.version.startswith("pretrained-")
    with zipfile.ZipFile(packed.path) as archive:
        assert archive.read(f"model/{WEIGHTS}") == (resnet_folder / WEIGHTS).read_bytes()


@pytest.mark.full
def test_moved_branch_is_ignored_until_update(
    bench: Bench, fake_hub: FakeHub, resnet_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    first = bench.pack(weights="pretrained")
    changed = content_of(resnet_folder)
    changed["preprocessor_config.json"] = changed["preprocessor_config.json"].replace(b"32", b"64")
    fake_hub.add(HUB_ID, changed)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other cache"))  # as on another machine
    again = bench.pack(weights="pretrained")
    assert again.sha256 == first.sha256

    moved = bench.pack(weights="pretrained", update=True)
    assert moved.sha256 != first.sha256
    assert lock_of(bench)[HUB_ID]["revision"] == fake_hub.repositories[HUB_ID].head
    assert read_provenance(moved.path).revision == fake_hub.repositories[HUB_ID].head


def test_missing_locked_commit_is_reported(
    bench: Bench, fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    bench.pack(weights="pretrained")
    fake_hub.repositories[HUB_ID].commits = {"f" * 40: {}}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other cache"))
    with pytest.raises(errors.HubNotFound, match=r"no longer has the commit.*--update"):
        bench.pack(weights="pretrained")


@pytest.mark.full
def test_each_repository_has_a_separate_lock_entry(
    bench: Bench, fake_hub: FakeHub, resnet_folder: Path
) -> None:
    other = content_of(resnet_folder)
    other["preprocessor_config.json"] = other["preprocessor_config.json"].replace(b"32", b"48")
    fake_hub.add("example/other-model", other)
    first = bench.pack(weights="pretrained")
    other = bench.pack(source="example/other-model")
    assert read_provenance(other.path).source == "example/other-model"
    assert other.sha256 != first.sha256
    assert set(lock_of(bench)) == {HUB_ID, "example/other-model"}
    assert bench.pack(weights="pretrained").sha256 == first.sha256


def test_changed_lock_entry_is_rejected(bench: Bench, fake_hub: FakeHub) -> None:
    bench.pack(weights="pretrained")
    lock = lock_of(bench)
    lock[HUB_ID]["files"]["config.json"]["sha256"] = "0" * 64
    bench.layout.lock.write_text(json.dumps(lock))
    with pytest.raises(errors.ChecksumMismatch, match=r"lock\.json"):
        bench.pack(weights="pretrained")


@pytest.mark.parametrize(
    "content", ["not json", "[]", f'{{"{HUB_ID}": {{}}}}', f'{{"{HUB_ID}": 3}}'], ids=range(4)
)
def test_broken_lock_file_is_reported(bench: Bench, fake_hub: FakeHub, content: str) -> None:
    bench.layout.lock.write_text(content)
    with pytest.raises(errors.LockFileError, match=r"lock\.json"):
        bench.pack(weights="pretrained")


@pytest.mark.parametrize("name", ["../../escape", ".hidden", "folder/model.safetensors"])
def test_lock_entry_with_outside_file_is_rejected(bench: Bench, fake_hub: FakeHub, name: str) -> None:
    bench.pack(weights="pretrained")
    lock = lock_of(bench)
    lock[HUB_ID]["files"][name] = {"size": 1, "oid": "0" * 40, "sha256": "0" * 64}
    bench.layout.lock.write_text(json.dumps(lock))
    with pytest.raises(errors.LockFileError, match="outside"):
        bench.pack(weights="pretrained")
