"""The cache of prepared files: locking, partial entries and pruning."""

from pathlib import Path

import pytest

from torchserve_models.packing.artifacts import cache


def test_partial_folders_are_unique(tmp_path: Path) -> None:
    assert cache.new_partial(tmp_path) != cache.new_partial(tmp_path)


def test_locking_removes_leftovers(tmp_path: Path) -> None:
    leftover = cache.new_partial(tmp_path / "net")
    leftover.mkdir(parents=True)
    (leftover / "openvino.xml").touch()
    with cache.lock_cache(tmp_path / "net"):
        assert not leftover.exists()


def test_entry_that_cannot_be_removed_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [tmp_path / str(number) for number in range(cache.MAX_ENTRIES + 1)]
    for entry in entries:
        entry.mkdir()
    monkeypatch.setattr(cache.shutil, "rmtree", lambda *_, **__: None)
    cache.prune(tmp_path, entries[-1])
    entries_left = {path for path in tmp_path.iterdir() if not path.name.startswith(cache.PARTIAL)}
    assert len(entries_left) == cache.MAX_ENTRIES
    assert entries[-1] in entries_left


def test_images_folder_is_stored(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        cache.read_images_folder(tmp_path)
    cache.write_images_folder(tmp_path, tmp_path / "photos")
    assert cache.read_images_folder(tmp_path) == tmp_path / "photos"
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    (tmp_path / "images").write_bytes(b"")
    with pytest.raises(OSError, match="empty"):
        cache.read_images_folder(tmp_path)
