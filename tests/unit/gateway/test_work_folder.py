"""nginx's folder is put back as it was."""

import json
import shutil
import stat

import pytest

from gateway.work_folder import WorkFolder


@pytest.fixture
def work():
    folder = WorkFolder()
    folder.config.write_text("events {}")
    for name in ("body", "proxy"):
        (folder.path / name).mkdir(mode=0o700)
    folder.remember()
    yield folder
    folder.remove()


def test_nothing_is_missing(work):
    assert not work.restore()


def test_one_folder(work):
    shutil.rmtree(work.path / "body")
    assert work.restore()
    assert stat.S_IMODE((work.path / "body").stat().st_mode) == 0o700
    assert not work.restore()


def test_the_whole_folder_with_its_configuration(work):
    shutil.rmtree(work.path)
    assert work.restore()
    assert (work.path / "proxy").is_dir()
    assert stat.S_IMODE(work.path.stat().st_mode) == 0o755
    assert work.config.read_text() == "events {}"
    assert stat.S_IMODE(work.config.stat().st_mode) == 0o600  # it holds a secret


def test_the_state_is_written_whole(work):
    work.write_state({"nginx": {"died": 1}})
    assert json.loads(work.state.read_text()) == {"restarts": {"nginx": {"died": 1}}}
    shutil.rmtree(work.path)
    with pytest.raises(OSError, match="No such file"):
        work.write_state({})


def test_it_is_removed(work):
    work.remove()
    assert not work.path.exists()
