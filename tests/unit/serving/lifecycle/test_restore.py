"""Tests of restoring models in a restarted front end: sources of archives, and versions that are missing."""

import errno
import json
import os
from dataclasses import asdict, replace
from urllib.parse import unquote

import pytest

from tests.faults.toys import toy
from tests.unit.serving.fake_client import FakeClient
from torchserve_models import client
from torchserve_models.serving.archives.manifests import archive_version
from torchserve_models.serving.health.model_states import ObservedVersion, ServerDescription
from torchserve_models.serving.lifecycle import restore, version_links
from torchserve_models.serving.lifecycle.restore import (
    RestorePlan,
    VersionToLoad,
    archives_in_store,
    plan_restore,
    restore_workers,
)
from torchserve_models.serving.lifecycle.snapshot import ModelSnapshot, ServedVersion
from torchserve_models.serving.lifecycle.version_links import VersionLinks

OLD, NEW = "starter-1a2b3c4d", "starter-5e6f7a8b"
SERVED = ServedVersion("m", OLD, False, "m.mar", 1, 2, 8, 10, 60, 120)


@pytest.fixture
def replaced(tmp_path):
    """Return a store in which NEW has replaced the archive of OLD while OLD is served."""
    messages = []
    links = VersionLinks(tmp_path, messages.append)
    toy(tmp_path, "m", version=OLD)
    links.sync([SERVED])
    toy(tmp_path, "m", version=NEW)
    links.sync([SERVED, replace(SERVED, version=NEW, default=True)])
    yield tmp_path, links
    assert messages == []
    links.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.mar"]


def test_every_version_is_loaded_default_first(replaced):
    store, links = replaced
    snapshot = ModelSnapshot.of([SERVED, replace(SERVED, version=NEW, default=True)])
    planned = plan_restore(snapshot, store, links.find)
    assert planned.missing == {}
    assert [(load.served.version, load.archive) for load in planned.loads] == [
        (NEW, "m.mar"),
        (OLD, f".m@{OLD}.mar"),
    ]
    settings = planned.settings({"load_models": "x", "models": '{"other": {"1": {}}}'})
    assert settings["load_models"] == f"m=m.mar,m=.m@{OLD}.mar"
    models = json.loads(settings["models"])
    assert models["m"][OLD]["minWorkers"] == 1
    assert models["m"][OLD]["batchSize"] == 8
    assert models["m"][NEW]["defaultVersion"] is True
    assert "other" in models
    with archives_in_store(planned, store) as failed:
        assert failed == {}
        assert archive_version(store / f".m@{OLD}.mar") == OLD
    assert not (store / f".m@{OLD}.mar").exists()


def test_missing_archives_are_named_and_others_loaded(tmp_path):
    toy(tmp_path, "m", version=NEW)
    links = VersionLinks(tmp_path, lambda _: None)
    snapshot = ModelSnapshot.of(
        [SERVED, replace(SERVED, version=NEW), replace(SERVED, name="a=b", version=NEW)]
    )
    planned = plan_restore(snapshot, tmp_path, links.find)
    assert [load.served.version for load in planned.loads] == [NEW]
    assert "no longer in" in planned.missing[("m", OLD)]
    assert "contains ',' or '='" in planned.missing[("a=b", NEW)]


def test_store_without_links_is_reported(tmp_path):
    planned = RestorePlan((VersionToLoad(SERVED, tmp_path / "gone" / "x.mar", "m@1.mar"),), {})
    with archives_in_store(planned, tmp_path) as failed:
        assert "cannot be linked" in failed[SERVED.key]


@pytest.mark.parametrize("version", ["1.0", "1..2", "1.", "..", "../../x", "a b", "1,2=3", "é", "%2E"])
def test_link_name_can_be_loaded_by_torchserve(version):
    name = version_links.link_name(("m", version))
    assert name.endswith(".mar")
    assert unquote(name) == f"m@{version}.mar"
    assert not {"..", "/", ",", "=", " "} & {name[i : i + n] for n in (1, 2) for i in range(len(name))}


def test_links_of_unregistered_versions_and_dead_runs_are_removed(replaced):
    store, links = replaced
    abandoned = store / ".versions" / "run-abandoned"
    abandoned.mkdir()
    (abandoned / "lock").write_text("")
    links.sync([replace(SERVED, version=NEW)])
    assert links.find(SERVED) is None
    other = VersionLinks(store, lambda _: None)
    other.sync([replace(SERVED, version=NEW)])
    assert not abandoned.exists()
    assert links.find(replace(SERVED, version=NEW)) is not None
    other.close()


def test_read_only_store_is_reported_once(tmp_path):
    toy(tmp_path, "m")
    toy(tmp_path, "n")
    (tmp_path / ".versions").write_text("in the way")
    messages = []
    links = VersionLinks(tmp_path, messages.append)
    links.sync([SERVED, replace(SERVED, name="n", archive="n.mar")])
    assert len(messages) == 1
    assert str(tmp_path) in messages[0]
    assert links.find(SERVED) == tmp_path / "m.mar"
    links.close()


def test_archive_that_cannot_be_linked_does_not_affect_others(tmp_path, monkeypatch):
    def link_or_copy(source, target):
        if source.name == "m.mar":
            raise OSError(errno.ENOSPC, "a copy would fill the disk")
        os.link(source, target)

    monkeypatch.setattr(version_links, "link_or_copy", link_or_copy)
    served = [SERVED, replace(SERVED, name="n", archive="n.mar")]
    for name in ("m", "n"):
        toy(tmp_path, name, version=OLD)
    messages = []
    links = VersionLinks(tmp_path, messages.append)
    for _ in range(2):
        links.sync(served)
    for name in ("m", "n"):
        toy(tmp_path, name, version=NEW)
    assert links.find(served[0]) is None
    assert links.find(served[1]) is not None
    assert len(messages) == 1
    assert f"m {OLD}" in messages[0]
    assert "would fill the disk" in messages[0]
    links.close()


class FakeManagement(FakeClient):
    def __init__(self):
        self.done = []

    def scale(self, name, least, most, version, synchronous):
        assert not synchronous
        if name == "bad":
            raise client.Timeout("no answer")
        self.done.append(("scale", name, version, least, most))

    def set_default(self, name, version, *, force):
        assert force  # its workers may still load
        self.done.append(("default", name, version))


def served_model(served):
    return ObservedVersion(**asdict(served), queue_waiting=0, queue_free=0, workers=())


def test_only_differences_are_restored_despite_a_failure(monkeypatch):
    management = FakeManagement()
    same = replace(SERVED, default=True)
    scaled = replace(SERVED, name="scaled")
    bad, missing = replace(SERVED, name="bad"), replace(SERVED, name="missing")
    present = [
        served_model(version)
        for version in (same, replace(scaled, min_workers=4), replace(bad, max_workers=9))
    ]
    monkeypatch.setattr(restore, "Client", management)
    monkeypatch.setattr(restore, "describe_server", lambda *_: ServerDescription(present, {}))
    pauses = []
    failed = restore_workers(
        client.Endpoints(), [same, bad, replace(scaled, default=True), missing], pauses.append
    )
    assert pauses == [*[0.0] * 4, restore._ATTEMPT_INTERVAL_S] * (restore._ATTEMPTS - 1) + [0.0] * 4
    once = [("scale", "scaled", OLD, 1, 2), ("default", "scaled", OLD)]
    assert management.done[:2] == once
    assert management.done == once * (len(management.done) // 2)
    assert set(failed) == {bad.key, missing.key}
