"""Tests of restoring models in a restarted front end: sources of archives, and versions that are missing."""

import json
from dataclasses import asdict, replace

import pytest

from tests.faults.toys import toy
from tests.unit.serving.fake_client import FakeClient
from torchserve_models import client
from torchserve_models.serving.archives.manifests import archive_version
from torchserve_models.serving.health.model_states import ObservedVersion, ServerDescription
from torchserve_models.serving.lifecycle import restore
from torchserve_models.serving.lifecycle.restore import (
    RestorePlan,
    VersionToLoad,
    archives_in_store,
    plan_restore,
    restore_workers,
)
from torchserve_models.serving.lifecycle.snapshot import ModelSnapshot, ServedVersion
from torchserve_models.serving.lifecycle.version_links import VersionLinks
from torchserve_models.serving.run_config.run_dir import RunDir

OLD, NEW = "starter-1a2b3c4d", "starter-5e6f7a8b"
SERVED = ServedVersion("m", OLD, False, "m.mar", 1, 2, 8, 10, 60, 120)


@pytest.fixture
def replaced(tmp_path):
    """Return a store in which NEW has replaced the archive of OLD while OLD is served."""
    messages = []
    links = VersionLinks(tmp_path, RunDir(tmp_path / "run"), messages.append)
    toy(tmp_path, "m", version=OLD)
    links.sync([SERVED])
    toy(tmp_path, "m", version=NEW)
    links.sync([SERVED, replace(SERVED, version=NEW, default=True)])
    yield tmp_path, links
    assert messages == []
    links.close()


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


def test_new_models_are_loaded_first_with_the_settings_of_their_archives(replaced):
    store, links = replaced
    planned = plan_restore(ModelSnapshot.of([SERVED]), store, links.find, ("m", "n"))
    settings = planned.settings({"load_models": "x"})
    assert settings["load_models"] == f"m=m.mar,n=n.mar,m=.m@{OLD}.mar"
    assert list(json.loads(settings["models"])) == ["m"]
    assert list(json.loads(settings["models"])["m"]) == [OLD]


def test_links_of_killed_supervisors_are_removed_from_the_store(tmp_path, monkeypatch):
    for name in (f".m@{OLD}", ".other", "m@1"):
        toy(tmp_path, name)
    with archives_in_store(RestorePlan((), {}), tmp_path):
        assert len(list(tmp_path.iterdir())) == 3  # another server may be starting
    monkeypatch.setattr(restore, "_ABANDONED_AFTER_S", -1.0)
    with archives_in_store(RestorePlan((), {}), tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".other.mar", "m@1.mar"]


def test_missing_archives_are_named_and_others_loaded(tmp_path):
    toy(tmp_path, "m", version=NEW)
    links = VersionLinks(tmp_path, RunDir(tmp_path / "run"), pytest.fail)
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
