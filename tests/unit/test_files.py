"""Atomic file replacement, and locks on files and folders."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from torchserve_models.files import PathLock, open_atomic, write_atomic


@pytest.mark.parametrize("content", ["Größe\n", b"\x00\xff"])
@pytest.mark.parametrize("sync", [False, True])
def test_file_is_replaced(tmp_path, content, sync):
    path = tmp_path / "file"
    path.write_text("old content")
    write_atomic(path, content, sync=sync)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_old_content_is_visible_until_the_block_ends(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with open_atomic(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def write_half():
        with open_atomic(path) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_target_that_is_a_folder_is_an_error(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "file", "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; from torchserve_models.files import open_atomic\n"
        "with open_atomic(Path(sys.argv[1])) as file:\n"
        "    file.write(b'new'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    writer = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert writer.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_mode_is_set_before_the_content_is_written(tmp_path):
    path = tmp_path / "file"
    with open_atomic(path, mode=0o600) as file:
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("is_folder", [False, True])
def test_lock_excludes_others_until_it_is_closed(tmp_path, is_folder):
    path = tmp_path if is_folder else tmp_path / "lock"
    create = not is_folder
    with PathLock(path, create=create), pytest.raises(BlockingIOError, match="Locked by another"):
        PathLock(path, create=create, blocking=False)
    lock = PathLock(path, create=create, blocking=False)
    lock.close()
    lock.close()


def test_blocking_lock_waits_for_its_release(tmp_path):
    first = PathLock(tmp_path)
    acquired = threading.Event()

    def acquire():
        with PathLock(tmp_path):
            acquired.set()

    thread = threading.Thread(target=acquire)
    thread.start()
    assert not acquired.wait(0.1)
    first.close()
    thread.join(10)
    assert acquired.is_set()


def test_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import sys; from pathlib import Path; from torchserve_models.files import PathLock\n"
        "lock = PathLock(Path(sys.argv[1])); print('locked', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError):
            PathLock(tmp_path, blocking=False)
        holder.kill()
    PathLock(tmp_path, blocking=False).close()


def test_lock_of_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        PathLock(tmp_path / "lock")
