"""Tests of the links to archives of served versions: which exist, who uses them, and when they are removed."""

import errno
import os
from dataclasses import replace
from urllib.parse import unquote

import pytest

from tests.faults.toys import toy
from torchserve_models.serving.lifecycle import version_links
from torchserve_models.serving.lifecycle.recorded_state import RecordedState
from torchserve_models.serving.lifecycle.snapshot import ServedVersion
from torchserve_models.serving.lifecycle.version_links import VersionLinks, link_name, remove_links
from torchserve_models.serving.run_config.run_dir import RunDir

OLD, NEW = "starter-1a2b3c4d", "starter-5e6f7a8b"
FIRST = ServedVersion("m", OLD, False, "m.mar", 1, 2, 8, 10, 60, 120)
SECOND = replace(FIRST, version=NEW, default=True)


@pytest.fixture
def store(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    toy(store, "m", version=OLD)
    return store


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "run")
    run.make()
    return run


def serve_both(store, run, info=pytest.fail):
    """Return the links of a run in which NEW has replaced the archive of OLD, which is still served."""
    links = VersionLinks(store, run, info)
    links.sync([FIRST])
    toy(store, "m", version=NEW)
    links.sync([FIRST, SECOND])
    return links


def record(store, run):
    RecordedState(1, str(store), ("m",), {}, (SECOND, FIRST)).write(run.snapshot)


def linked(store):
    return sorted(path.name for path in store.glob(".versions/*/*.mar"))


@pytest.mark.parametrize("version", ["1.0", "1..2", "1.", "..", "../../x", "a b", "1,2=3", "é", "%2E"])
def test_link_name_can_be_loaded_by_torchserve(version):
    name = version_links.link_name(("m", version))
    assert name.endswith(".mar")
    assert unquote(name) == f"m@{version}.mar"
    assert not {"..", "/", ",", "=", " "} & {name[i : i + n] for n in (1, 2) for i in range(len(name))}


def test_links_are_those_of_the_served_versions(store, run):
    links = serve_both(store, run)
    assert linked(store) == sorted(map(link_name, (FIRST.key, SECOND.key)))
    assert links.find(SECOND).stat().st_nlink == 2  # takes no space
    links.sync([SECOND])
    assert linked(store) == [link_name(SECOND.key)]
    assert links.find(FIRST) is None
    links.close()
    assert [path.name for path in store.iterdir()] == ["m.mar"]


def test_only_links_of_replaced_archives_outlive_the_run(store, run):
    serve_both(store, run).close()
    assert linked(store) == [link_name(FIRST.key)]
    record(store, run)
    following = VersionLinks(store, run, pytest.fail)
    assert following.find(FIRST).name == link_name(FIRST.key)
    assert following.find(SECOND) == store / "m.mar"
    # TorchServe reports a temporary name for a restored version.
    restored = replace(FIRST, archive=f".{link_name(FIRST.key)}")
    following.sync([restored, SECOND])
    assert linked(store) == sorted(map(link_name, (FIRST.key, SECOND.key)))
    following.close()
    assert linked(store) == [link_name(FIRST.key)]
    following = VersionLinks(store, run, pytest.fail)
    assert following.find(restored) is not None
    following.sync([SECOND])
    following.close()
    assert [path.name for path in store.iterdir()] == ["m.mar"]


def test_links_survive_a_killed_supervisor(store, run):
    """A killed supervisor does not close its links; only its lock ends."""
    killed = serve_both(store, run)
    killed._lock.close()
    following = VersionLinks(store, run, pytest.fail)
    assert following.find(FIRST) is not None
    assert len(list((store / ".versions").iterdir())) == 1
    following.close()  # after a start that failed
    assert linked(store) == sorted(map(link_name, (FIRST.key, SECOND.key)))


def test_other_run_keeps_links_that_are_needed(store, run, tmp_path):
    serve_both(store, run).close()
    other_run = RunDir(tmp_path / "other")
    for needed in (True, False):
        if needed:
            record(store, run)
        else:
            run.snapshot.unlink()
        other = VersionLinks(store, other_run, pytest.fail)
        other.sync([SECOND])
        assert (link_name(FIRST.key) in linked(store)) is needed
        other.close()
    assert [path.name for path in store.iterdir()] == ["m.mar"]


def test_other_run_keeps_links_in_use_and_of_an_unreadable_state(store, run, tmp_path):
    links = serve_both(store, run)
    other = VersionLinks(store, RunDir(tmp_path / "other"), pytest.fail)
    other.sync([SECOND])
    assert links.find(FIRST) is not None
    other.close()
    links.close()
    run.snapshot.write_text("damaged")
    other = VersionLinks(store, RunDir(tmp_path / "other"), pytest.fail)
    other.sync([SECOND])
    other.close()
    assert linked(store) == [link_name(FIRST.key)]


def test_links_of_a_state_that_belongs_to_another_store_are_removed(store, run, tmp_path):
    serve_both(store, run).close()
    record(tmp_path / "moved", run)
    other = VersionLinks(store, RunDir(tmp_path / "other"), pytest.fail)
    assert other.find(SECOND) == store / "m.mar"
    assert [path.name for path in store.iterdir()] == ["m.mar"]


def test_links_of_one_run_are_removed(store, run, tmp_path):
    serve_both(store, run).close()
    remove_links(store, RunDir(tmp_path / "other"))
    assert linked(store) == [link_name(FIRST.key)]
    remove_links(store, run)
    assert [path.name for path in store.iterdir()] == ["m.mar"]


def test_read_only_store_is_reported_once(tmp_path, run):
    toy(tmp_path, "m")
    toy(tmp_path, "n")
    (tmp_path / ".versions").write_text("in the way")
    messages = []
    links = VersionLinks(tmp_path, run, messages.append)
    links.sync([FIRST, replace(FIRST, name="n", archive="n.mar")])
    assert len(messages) == 1
    assert str(tmp_path) in messages[0]
    assert links.find(FIRST) == tmp_path / "m.mar"
    links.close()


def test_archive_that_cannot_be_linked_does_not_affect_others(store, run, monkeypatch):
    def link_or_copy(source, target):
        if source.name == "m.mar":
            raise OSError(errno.ENOSPC, "a copy would fill the disk")
        os.link(source, target)

    monkeypatch.setattr(version_links, "link_or_copy", link_or_copy)
    served = [FIRST, replace(FIRST, name="n", archive="n.mar")]
    toy(store, "n", version=OLD)
    messages = []
    links = VersionLinks(store, run, messages.append)
    for _ in range(2):
        links.sync(served)
    for name in ("m", "n"):
        toy(store, name, version=NEW)
    assert links.find(served[0]) is None
    assert links.find(served[1]) is not None
    assert len(messages) == 1
    assert f"m {OLD}" in messages[0]
    assert "would fill the disk" in messages[0]
    links.close()
