"""What is known of a running model: where it is from, whether it answers, and when it is only busy."""

import json
import time
import zipfile
from dataclasses import asdict, replace

import pytest

from torchserve_models import client
from torchserve_models.client import Endpoints
from torchserve_models.packing import Provenance
from torchserve_models.serving.health import archive_origin, model_probe
from torchserve_models.serving.health.archive_origin import Origin
from torchserve_models.serving.health.model_states import Model, Worker

WORKER = Worker("1", "READY", 1, True, 1)
MODEL = Model("m", "starter-1", True, "m.mar", 1, 1, 20, 20, 0, 10, (WORKER,))


def archive(store, version="starter-1", task="summarization"):
    made = Provenance("m", version, str(task), "starter", "here", None, {}, None, {}, "auto", "A")
    with zipfile.ZipFile(store / "m.mar", "w") as content:
        content.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelVersion": version}}))
        if task:
            content.writestr("provenance.json", json.dumps(asdict(made)))


class FakeClient:
    """Answers as the test says: `metadata` of a described model, `error` of a question."""

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


def test_the_archive_of_the_running_version_says_where_it_is_from(tmp_path, fake):
    fake.error = client.Unavailable("not to be asked")
    archive(tmp_path)
    assert find(tmp_path) == Origin("starter", "here", "summarization")


@pytest.mark.parametrize("other", ["another version", "another one of nobody's", "none"])
def test_the_worker_says_it_when_the_store_holds_something_else(tmp_path, fake, other):
    if other != "none":
        archive(tmp_path, "starter-2", "image-classification" if other == "another version" else None)
    fake.metadata = {"task": "summarization", "weights": "pretrained", "source": "there"}
    assert find(tmp_path) == Origin("pretrained", "there", "summarization")
    fake.metadata = None
    assert find(tmp_path) is None
    fake.error = client.Timeout("no answer")
    assert find(tmp_path) is None


def test_an_archive_that_says_nothing_of_its_own_is_judged_by_its_workers(tmp_path, fake):
    archive(tmp_path, task=None)
    assert find(tmp_path) == Origin()
    assert model_probe.send_probe(Endpoints(), MODEL, Origin(), 1.0).ok


def test_a_model_of_which_nothing_is_known_is_not_ready():
    answer = model_probe.send_probe(Endpoints(), MODEL, None, 1.0)
    assert not answer.ok
    assert not answer.busy
    assert not answer.asked


@pytest.mark.parametrize("error", [client.Timeout("no answer in time"), client.Overloaded("no worker")])
@pytest.mark.parametrize(
    ("model", "busy"),
    [
        (replace(MODEL, queue_waiting=3), True),
        (MODEL, False),
        (replace(MODEL, queue_waiting=3, workers=(replace(WORKER, alive=False),)), False),
        (replace(MODEL, queue_waiting=3, workers=(replace(WORKER, status="UNLOADING"),)), False),
    ],
)
def test_late_is_busy_where_requests_wait_for_workers_that_are_there(fake, monkeypatch, error, model, busy):
    fake.error = error
    monkeypatch.setattr(model_probe, "inspect", lambda *_, **__: [model])
    answer = model_probe.send_probe(Endpoints(), model, Origin(task="summarization"), 1.0)
    assert (answer.busy, answer.ok) == (busy, busy)
    assert answer.problem == (None if busy else error.message)


def test_an_error_is_never_busy(fake, monkeypatch):
    fake.error = client.InternalError("it broke")
    monkeypatch.setattr(model_probe, "inspect", lambda *_, **__: [replace(MODEL, queue_waiting=3)])
    answer = model_probe.send_probe(Endpoints(), MODEL, Origin(task="summarization"), 1.0)
    assert answer.problem == "it broke"


def test_what_was_known_when_the_version_appeared_is_not_asked_for_again(tmp_path, fake, monkeypatch):
    """The archive in the store may be another one by then, and the worker may be busy."""
    asked = []
    monkeypatch.setattr(archive_origin, "find_origin", lambda *_: asked.append("find"))
    monkeypatch.setattr(
        model_probe,
        "send_probe",
        lambda _endpoints, _model, origin, _timeout: model_probe.ProbeResult(origin.task, 0.0),
    )
    probe = model_probe.Probe(Endpoints(), tmp_path, MODEL, 1.0, Origin(task="summarization"))
    end = time.monotonic() + 10
    while probe.answer is None and time.monotonic() < end:
        time.sleep(0.01)
    assert probe.answer.problem == "summarization"
    assert asked == []
