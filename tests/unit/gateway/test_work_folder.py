"""nginx's own folder: kept from cleaners, made again when they came, and not left behind."""

import fcntl
import os
import shutil
import stat

import pytest

from torchserve_models.gateway.work_folder import PREFIX, WorkFolder


def test_other_users_may_enter_it_and_a_lock_holds_off_cleaners(tmp_path):
    folder = WorkFolder(tmp_path)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o755
    other = os.open(folder.path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    folder.remove()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_was_removed_comes_back(tmp_path):
    folder = WorkFolder(tmp_path)
    folder.restore()
    assert list(folder.path.iterdir()) == []  # before nginx has made them
    (folder.path / "body").mkdir()
    owner = (folder.path / "body").stat().st_uid
    folder.restore()
    shutil.rmtree(folder.path)
    folder.restore()
    assert (folder.path / "body").stat().st_uid == owner
    assert {path.name for path in folder.path.iterdir()} >= {"body", "proxy", "refusals"}
    folder.remove()


def test_folders_of_killed_processes_are_removed_and_no_others(tmp_path):
    kept = WorkFolder(tmp_path)
    for name in (f"{PREFIX}abandoned", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "other")
    second = WorkFolder(tmp_path)
    assert not (tmp_path / f"{PREFIX}abandoned").exists()
    assert (tmp_path / "other").is_dir()
    assert kept.path.is_dir()
    kept.remove()
    second.remove()
