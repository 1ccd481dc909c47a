"""Tests of hard links, and of copies if links are not allowed."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from torchserve_models.serving.archives import file_links
from torchserve_models.serving.archives.file_links import link_or_copy

NOBODY = 65534


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "m.mar"
    path.write_bytes(os.urandom(3 * 2**20))
    return path


@pytest.fixture
def forbidden(monkeypatch):
    def link(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(file_links.os, "link", link)
    monkeypatch.setattr(file_links, "MIN_FREE_BYTES", 0)


def test_file_is_linked_if_links_are_allowed(source, tmp_path):
    link_or_copy(source, tmp_path / "link")
    assert (tmp_path / "link").samefile(source)


@pytest.mark.parametrize("shares", [True, False])
def test_file_is_copied_if_links_are_forbidden(source, tmp_path, forbidden, monkeypatch, shares):
    if not shares:
        monkeypatch.setattr(file_links, "_share_blocks", lambda *_: False)
    link_or_copy(source, tmp_path / "copy")
    assert not (tmp_path / "copy").samefile(source)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_copy_that_would_fill_the_disk_is_rejected(source, tmp_path, forbidden, monkeypatch):
    monkeypatch.setattr(file_links, "MIN_FREE_BYTES", 2**60)
    monkeypatch.setattr(file_links, "_share_blocks", lambda *_: False)
    with pytest.raises(OSError, match="a copy of 3 MiB would leave less than") as error:
        link_or_copy(source, tmp_path / "copy")
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == [source]


def test_other_link_errors_are_raised(source, tmp_path):
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "absent", tmp_path / "link")
    (tmp_path / "link").write_text("there")
    with pytest.raises(FileExistsError):
        link_or_copy(source, tmp_path / "link")
    assert (tmp_path / "link").read_text() == "there"


@pytest.mark.skipif(
    os.geteuid() != 0 or Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1",
    reason="needs root, and a kernel that protects hard links",
)
def test_archive_of_another_owner_is_copied(source, tmp_path):
    """Root has packed the archive, and the server runs as another user."""
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o777)
    code = (
        "import os, sys; from pathlib import Path; from torchserve_models.serving.archives import file_links\n"
        "file_links.MIN_FREE_BYTES = 0; os.setuid(int(sys.argv[3]))\n"
        "try: os.link(sys.argv[1], sys.argv[2]); sys.exit('the kernel allows it')\n"
        "except PermissionError: pass\n"
        "file_links.link_or_copy(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    target = tmp_path / "copy"
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(target), str(NOBODY)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_uid == NOBODY
