"""Tests of the origin of a running model, and of probes with right, failed and busy results."""

import json
import time
import zipfile
from dataclasses import asdict, replace

import pytest

from torchserve_models import client
from torchserve_models.client import Endpoints
from torchserve_models.packing import Provenance
from torchserve_models.serving.health import archive_origin, model_probe
from torchserve_models.serving.health.archive_origin import ArchiveOrigin
from torchserve_models.serving.health.model_states import ObservedVersion, ObservedWorker

WORKER = ObservedWorker("1", "READY", 1, True, 1)
MODEL = ObservedVersion("m", "starter-1", True, "m.mar", 1, 1, 20, 20, 0, 10, (WORKER,))


def archive(store, version="starter-1", task="summarization"):
    provenance = Provenance("m", version, str(task), "starter", "here", None, {}, None, {}, "auto", "A")
    with zipfile.ZipFile(store / "m.mar", "w") as content:
        content.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelVersion": version}}))
        if task:
            content.writestr("provenance.json", json.dumps(asdict(provenance)))


class FakeClient:
    """Client that answers `metadata` for a described model and raises `error` for a probe."""

    metadata = None
    error: Exception | None = None

    def __init__(self, **_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def describe(self, _name, _version, customized):
        assert customized
        if self.error:
            raise self.error
        return self

    def summarize(self, *_, **__):
        if self.error:
            raise self.error


@pytest.fixture
def fake(monkeypatch):
    class Fake(FakeClient):
        pass

    monkeypatch.setattr(archive_origin, "Client", Fake)
    monkeypatch.setattr(model_probe, "Client", Fake)
    return Fake


def find(store):
    return archive_origin.find_origin(Endpoints(), store, MODEL, 1.0)


def test_origin_is_read_from_archive_of_running_version(tmp_path, fake):
    fake.error = client.Unavailable("not to be asked")
    archive(tmp_path)
    assert find(tmp_path) == ArchiveOrigin("starter", "here", "summarization")


@pytest.mark.parametrize("other", ["another version", "another one of nobody's", "none"])
def test_origin_is_read_from_worker_if_archive_differs(tmp_path, fake, other):
    if other != "none":
        archive(tmp_path, "starter-2", "image-classification" if other == "another version" else None)
    fake.metadata = {"task": "summarization", "weights": "pretrained", "source": "there"}
    assert find(tmp_path) == ArchiveOrigin("pretrained", "there", "summarization")
    fake.metadata = None
    assert find(tmp_path) is None
    fake.error = client.Timeout("no answer")
    assert find(tmp_path) is None


def test_model_without_provenance_is_judged_by_its_workers(tmp_path, fake):
    archive(tmp_path, task=None)
    assert find(tmp_path) == ArchiveOrigin()
    assert model_probe.send_probe(Endpoints(), MODEL, ArchiveOrigin(), 1.0).ok


def test_model_of_unknown_origin_is_not_probed():
    answer = model_probe.send_probe(Endpoints(), MODEL, None, 1.0)
    assert not answer.ok
    assert not answer.busy
    assert not answer.sent


LATE, REFUSED = (
    client.Timeout("no answer in time"),
    client.Overloaded("no worker", type=model_probe.FRONT_END_REFUSAL),
)
QUEUED = replace(MODEL, queue_waiting=3)


@pytest.mark.parametrize(
    ("error", "model", "busy"),
    [
        (LATE, QUEUED, True),
        (LATE, MODEL, False),
        (REFUSED, QUEUED, True),
        (REFUSED, MODEL, True),
        *(
            (error, replace(QUEUED, workers=workers), False)
            for error in (LATE, REFUSED)
            for workers in ((replace(WORKER, alive=False),), (replace(WORKER, status="UNLOADING"),), ())
        ),
    ],
)
def test_probe_without_answer_means_busy_if_workers_can_answer(fake, monkeypatch, error, model, busy):
    fake.error = error
    monkeypatch.setattr(model_probe, "inspect", lambda *_, **__: [model])
    answer = model_probe.send_probe(Endpoints(), model, ArchiveOrigin(task="summarization"), 1.0)
    assert (answer.busy, answer.ok) == (busy, busy)
    assert answer.problem == (None if busy else error.message)


def test_error_answer_is_never_busy(fake, monkeypatch):
    fake.error = client.InternalError("it broke")
    monkeypatch.setattr(model_probe, "inspect", lambda *_, **__: [replace(MODEL, queue_waiting=3)])
    answer = model_probe.send_probe(Endpoints(), MODEL, ArchiveOrigin(task="summarization"), 1.0)
    assert answer.problem == "it broke"


def test_known_origin_is_not_looked_up_again(tmp_path, fake, monkeypatch):
    """The archive in the store may have been replaced, and the worker may be busy."""
    lookups = []
    monkeypatch.setattr(archive_origin, "find_origin", lambda *_: lookups.append("find"))
    monkeypatch.setattr(
        model_probe,
        "send_probe",
        lambda _endpoints, _model, origin, _timeout: model_probe.ProbeResult(origin.task, 0.0),
    )
    probe = model_probe.ModelProbe(Endpoints(), tmp_path, MODEL, 1.0, ArchiveOrigin(task="summarization"))
    end = time.monotonic() + 10
    while probe.answer is None and time.monotonic() < end:
        time.sleep(0.01)
    assert probe.answer.problem == "summarization"
    assert lookups == []
