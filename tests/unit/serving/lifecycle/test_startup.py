"""Tests of waiting for a front end: tolerated delays, and failures."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.unit.serving.health.test_model_probe import MODEL, archive
from torchserve_models import client
from torchserve_models.client import Client
from torchserve_models.serving.errors import FrontendFailed, ModelFailed
from torchserve_models.serving.health import model_probe
from torchserve_models.serving.lifecycle import startup
from torchserve_models.serving.lifecycle.startup import StartupMonitor
from torchserve_models.serving.run_config.run_plan import plan_run


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Return a startup monitor whose front end gives these answers in order; exceptions are raised."""

    def make(*answers, check=lambda: None):
        remaining_s = list(answers)

        def inspect(_endpoints=None, names=None, **_):
            if names == []:
                return []
            answer = remaining_s.pop(0) if len(remaining_s) > 1 else remaining_s[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(startup, "inspect", inspect)
        monkeypatch.setattr(Client, "list_models", inspect)
        monkeypatch.setattr(startup, "_POLL_INTERVAL_S", 0.001)
        archive(tmp_path, task=None)
        return StartupMonitor(plan_run(["m"], tmp_path, tmp_path / "run"), check, lambda _: None)

    return make


def wait(monitor):
    """Wait as a first start does, in which the model `m` is new."""
    startup.wait_for_frontend(monitor._plan, monitor._check)
    return monitor.wait(["m"])


LOADING = replace(MODEL, workers=())
LATE = client.Timeout("no answer in time")


def test_slow_front_end_is_waited_for_while_models_load(start):
    waiting = start(
        client.Unavailable("not yet"), [], LATE, [LOADING], LATE, client.Unavailable("?"), [MODEL]
    )
    assert wait(waiting) == [MODEL]


def test_silent_front_end_ends_the_start(start, monkeypatch):
    monkeypatch.setattr(startup, "_FRONTEND_TIMEOUT_S", 0.05)
    with pytest.raises(FrontendFailed, match=r"did not answer .*no answer in time"):
        wait(start([], LATE))


def test_dead_front_end_ends_the_start_at_once(start):
    def check():
        raise FrontendFailed("it has ended")

    with pytest.raises(FrontendFailed, match="it has ended"):
        wait(start([], LATE, check=check))


def test_invalid_request_ends_the_start(start, monkeypatch):
    def send_probe(*_):
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(model_probe, "send_probe", send_probe)
    with pytest.raises(ModelFailed, match="nobody thought of this"):
        wait(start([MODEL]))


def test_busy_model_is_probed_again(start, monkeypatch):
    busy = model_probe.ProbeResult(None, 0.0, busy=True)
    answers = [busy, busy, model_probe.ProbeResult(None, 0.0)]
    monkeypatch.setattr(model_probe, "send_probe", lambda *_: answers.pop(0))
    assert wait(start([MODEL])) == [MODEL]
    assert answers == []


def test_model_that_stays_busy_ends_the_start(start, monkeypatch):
    monkeypatch.setattr(startup, "_PROBE_SLACK_S", 0.05)
    monkeypatch.setattr(model_probe, "send_probe", lambda *_: model_probe.ProbeResult(None, 0.0, busy=True))
    with pytest.raises(ModelFailed, match="m is loaded but does not answer"):
        wait(start([replace(MODEL, response_timeout=0)]))


def log(monitor, *lines):
    with open(monitor._plan.run.server_log, "a") as file:
        file.writelines(f"{line}\n" for line in lines)


RETRY = "2026-11-30T00:00:00,000 INFO  W-9000-{} WorkerThread - Retry worker: 1 in 1 seconds"


def test_restored_version_that_fails_to_load_does_not_end_the_start(start, monkeypatch):
    bad = replace(LOADING, name="bad", version="2")
    monitor = start([MODEL, bad])
    monitor._plan.run.make()
    monkeypatch.setattr(model_probe, "send_probe", lambda *_: model_probe.ProbeResult(None, 0.0))
    monkeypatch.setattr(monitor, "_wait_for_failure_reason", lambda _: "ValueError: other weights")
    log(monitor, RETRY.format("bad_2"))
    assert monitor.wait([], [("m", MODEL.version), ("bad", "2")]) == [MODEL, bad]
    assert list(monitor.failed) == [("bad", "2")]
    assert "bad cannot be loaded: ValueError: other weights" in monitor.failed["bad", "2"]


def test_restored_version_that_does_not_answer_does_not_end_the_start(start, monkeypatch):
    wrong = model_probe.ProbeResult("500", 0.0)
    monkeypatch.setattr(model_probe, "send_probe", lambda *_: wrong)
    monitor = start([MODEL])
    assert monitor.wait([], [("m", MODEL.version)]) == [MODEL]
    assert "does not answer" in monitor.failed["m", MODEL.version]


def test_new_version_beside_restored_ones_must_load(start, monkeypatch):
    monitor = start([MODEL, replace(LOADING, version="2", default=False)])
    monitor._plan.run.make()
    monkeypatch.setattr(monitor, "_wait_for_failure_reason", lambda _: "ValueError: other weights")
    log(monitor, RETRY.format("m_2"))
    with pytest.raises(ModelFailed, match="m cannot be loaded: ValueError: other weights"):
        monitor.wait(["m"], [("m", MODEL.version)])


WORKER = "2026-11-21T09:30:54,184 INFO  W-9000-m_starter-1"
TRACEBACK = """Traceback (most recent call last):
  File "toy.py", line 1, in initialize"""


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([[TRACEBACK], [], ["KeyError: 'a'"], [TRACEBACK, "ValueError: wrong weights"]], "ValueError: wrong"),
        ([["loading"], []], "without a traceback .*: loading"),
    ],
    ids=["late", "missing"],
)
def test_late_output_of_a_worker_is_waited_for(start, monkeypatch, lines, reason):
    """The worker's output is logged after its end, line by line; a traceback may follow another one."""
    monkeypatch.setattr(startup, "_TRACEBACK_TIMEOUT_S", 0.2)
    monitor = start([LOADING])
    run, remaining = monitor._plan.run, list(lines)

    def write_log(_):
        for line in "\n".join(remaining.pop(0) if remaining else []).splitlines():
            with open(run.workers_log, "a") as log:
                log.write(f"{WORKER}-stdout - {line}\n")

    run.make()
    log(monitor, RETRY.format("m_starter-1"))
    monkeypatch.setattr(startup, "time", SimpleNamespace(sleep=write_log, monotonic=time.monotonic))
    with pytest.raises(ModelFailed, match=f"m cannot be loaded: .*{reason}"):
        wait(monitor)
