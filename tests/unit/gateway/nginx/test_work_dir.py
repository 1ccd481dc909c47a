"""nginx's working directory: locked, restored after a removal, and removed at the end."""

import fcntl
import os
import shutil
import stat

import pytest

from torchserve_models.gateway.nginx.work_dir import PREFIX, WorkDir


def test_directory_is_accessible_and_locked(tmp_path):
    folder = WorkDir(tmp_path)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o755
    other = os.open(folder.path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    folder.remove()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_removed_directories_are_restored(tmp_path):
    folder = WorkDir(tmp_path)
    folder.restore()
    assert list(folder.path.iterdir()) == []  # nginx has not created its directories yet
    (folder.path / "body").mkdir()
    owner = (folder.path / "body").stat().st_uid
    folder.restore()
    shutil.rmtree(folder.path)
    folder.restore()
    assert (folder.path / "body").stat().st_uid == owner
    assert {path.name for path in folder.path.iterdir()} >= {"body", "proxy", "refusals"}
    folder.remove()


def test_only_directories_of_killed_processes_are_removed(tmp_path):
    first = WorkDir(tmp_path)
    for name in (f"{PREFIX}abandoned", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "other")
    second = WorkDir(tmp_path)
    assert not (tmp_path / f"{PREFIX}abandoned").exists()
    assert (tmp_path / "other").is_dir()
    assert first.path.is_dir()
    first.remove()
    second.remove()
