"""The cache of what was prepared: nothing half, nothing shared with a pack that was killed."""

from pathlib import Path

import pytest

from torchserve_models.packing.artifacts import cache


def test_two_packs_never_fill_the_same_folder(tmp_path: Path) -> None:
    assert cache.fresh(tmp_path) != cache.fresh(tmp_path)


def test_leftovers_go_under_the_lock(tmp_path: Path) -> None:
    left = cache.fresh(tmp_path / "net")
    left.mkdir(parents=True)
    (left / "openvino.xml").touch()
    with cache.locked(tmp_path / "net"):
        assert not left.exists()


def test_what_cannot_be_removed_whole_is_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [tmp_path / str(number) for number in range(cache.KEPT + 1)]
    for entry in entries:
        entry.mkdir()
    monkeypatch.setattr(cache.shutil, "rmtree", lambda *_, **__: None)
    cache.prune(tmp_path, entries[-1])
    kept = {path for path in tmp_path.iterdir() if not path.name.startswith(cache.PARTIAL)}
    assert len(kept) == cache.KEPT
    assert entries[-1] in kept


def test_the_folder_of_images_is_remembered_whole(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        cache.remembered(tmp_path)
    cache.remember(tmp_path, tmp_path / "photos")
    assert cache.remembered(tmp_path) == tmp_path / "photos"
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    (tmp_path / "images").write_bytes(b"")
    with pytest.raises(OSError, match="empty"):
        cache.remembered(tmp_path)
