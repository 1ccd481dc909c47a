"""Tests of restarts of a fake front end: backoff, failed attempts, restored versions, and the limit."""

from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest

from torchserve_models import client
from torchserve_models.backoff import Backoff
from torchserve_models.serving.errors import FrontendFailed, Interrupted
from torchserve_models.serving.health.model_states import ObservedVersion
from torchserve_models.serving.lifecycle.recorded_state import RecordedState
from torchserve_models.serving.lifecycle.restore import RestorePlan, VersionToLoad
from torchserve_models.serving.lifecycle.snapshot import ModelSnapshot, ServedVersion
from torchserve_models.serving.run_config.run_plan import plan_run
from torchserve_models.serving.supervisor import frontend_supervisor
from torchserve_models.serving.supervisor.frontend_supervisor import FrontendSupervisor

SERVED = ServedVersion("m", "1", True, "m.mar", 1, 1, 8, 10, 60, 120)


class FakeFrontend:
    def __init__(self):
        self.is_running = True
        self.ending = "killed by SIGKILL"
        self.is_out_of_memory = False
        self.stopped = False
        self.ended = []

    def is_stopped(self):
        return self.stopped

    def end(self, timeout):
        self.ended.append(timeout)


class FakeMonitor:
    def __init__(self, _poller, _inference, _run, served, _save):
        self.problem = None
        self.served = served

    def start(self):
        pass

    def close(self):
        pass


@pytest.fixture
def supervisor(tmp_path, monkeypatch):
    """Return a front-end supervisor whose starts succeed unless a test adds errors to `failures`."""
    supervisor = FrontendSupervisor(
        plan_run(["m"], tmp_path, tmp_path / "run"), None, print, lambda: None, lambda _: None
    )
    supervisor.plan_missing, supervisor.failures, supervisor.adjusted = {}, [], []
    supervisor.loads = (VersionToLoad(SERVED, tmp_path / "m.mar", "m.mar"),)
    supervisor.frontend, supervisor.snapshot = FakeFrontend(), ModelSnapshot.of([SERVED])
    supervisor._backoff = Backoff(initial_delay_s=0.0, max_delay_s=0.0, max_restarts=3)

    @contextmanager
    def in_store(*_):
        yield {}

    def launch(_settings):
        if supervisor.failures:
            raise supervisor.failures.pop(0)
        supervisor.frontend = FakeFrontend()

    def restore_workers(_endpoints, served, _pause):
        supervisor.adjusted.append(list(served))
        return {}

    monkeypatch.setattr(supervisor, "launch", launch)
    monkeypatch.setattr(supervisor, "_wait_for_ports", lambda: None)
    monkeypatch.setattr(frontend_supervisor, "FrontendMonitor", FakeMonitor)
    monkeypatch.setattr(frontend_supervisor, "wait_for_frontend", lambda *_: None)
    monkeypatch.setattr(frontend_supervisor.restore, "archives_in_store", in_store)
    monkeypatch.setattr(frontend_supervisor.restore, "restore_workers", restore_workers)
    monkeypatch.setattr(
        frontend_supervisor.restore,
        "plan_restore",
        lambda *_: RestorePlan(supervisor.loads, dict(supervisor.plan_missing)),
    )
    yield supervisor
    supervisor.close()


def test_each_problem_has_a_reason(supervisor):
    assert supervisor.problem() is None
    supervisor.frontend.stopped = True
    assert supervisor.problem()[0] == "stopped"
    supervisor.frontend.is_running = False
    assert supervisor.problem() == ("ended", "the front end ended unexpectedly (killed by SIGKILL)")
    supervisor.frontend = FakeFrontend()
    supervisor._monitor = FakeMonitor(*[None] * 5)
    supervisor._monitor.problem = ("no_answer", "silent")
    assert supervisor.problem() == ("no_answer", "silent")


def test_restart_continues_after_failed_attempts(supervisor):
    old = supervisor.frontend
    supervisor.failures[:] = [FrontendFailed("no Java"), ValueError("a mistake of ours")]
    supervisor.restart("ended", "killed")
    assert old.ended == [0.0, 0.0, 0.0]
    assert supervisor.frontend is not old
    assert supervisor.adjusted == [[SERVED]]


def test_restart_limit_does_not_count_memory_exhausted_by_requests(supervisor, monkeypatch):
    for _ in range(3):
        supervisor.restart("ended", "killed")
    with pytest.raises(FrontendFailed, match=r"failed more than .* in a row, .*killed"):
        supervisor.restart("ended", "killed")
    monkeypatch.setattr(frontend_supervisor, "_MAX_DELAY_S", 0.0)
    supervisor.restart("out_of_memory", "no direct memory")


def test_stop_request_ends_a_restart(supervisor):
    def check():
        raise Interrupted("stopped")

    supervisor._check = check
    with pytest.raises(Interrupted):
        supervisor.restart("ended", "killed")


def test_version_is_missing_until_it_is_registered(supervisor):
    supervisor.plan_missing = {SERVED.key: "its archive is gone"}
    supervisor.restart("ended", "killed")
    served = supervisor._monitor.served
    other = replace(SERVED, version="2")
    assert supervisor.missing == {SERVED.key: "its archive is gone"}
    assert supervisor.lost_defaults == {"m": "1"}
    served.update([other])  # TorchServe makes it the default one
    supervisor._save(served)
    assert supervisor.missing == {SERVED.key: "its archive is gone"}
    assert supervisor.lost_defaults == {"m": "1"}
    served.update([SERVED, replace(other, default=False)])
    supervisor._save(served)
    assert supervisor.missing == {}
    assert supervisor.lost_defaults == {}


def test_other_missing_version_is_not_a_lost_default(supervisor):
    other = replace(SERVED, version="2", default=False)
    supervisor.snapshot = ModelSnapshot.of([SERVED, other])
    supervisor.plan_missing = {other.key: "its archive is gone"}
    supervisor.restart("ended", "killed")
    assert (supervisor.missing, supervisor.lost_defaults) == ({other.key: "its archive is gone"}, {})


class FakeStartup:
    """A startup monitor that finds the given models; restored versions whose name is "bad" fail."""

    models = ()

    def __init__(self, _plan, _check, _progress):
        self.failed = {}
        self.waited = None

    def wait(self, new, restored):
        FakeStartup.waited = (new, restored)
        self.failed = {key: f"{key[0]} cannot be loaded" for key in restored if key[0] == "bad"}
        return list(self.models)


def observed(served):
    return ObservedVersion(**asdict(served), queue_waiting=0, queue_free=0, workers=())


def start(supervisor, monkeypatch, *served):
    monkeypatch.setattr(frontend_supervisor, "StartupMonitor", FakeStartup)
    monkeypatch.setattr(FakeStartup, "models", tuple(map(observed, served)))
    monkeypatch.setattr(supervisor, "_info", (messages := []).append)
    models = supervisor.start(lambda _: None)
    assert [model.name for model in models] == [version.name for version in served]
    return messages


def test_first_start_records_the_models(supervisor, monkeypatch):
    run = supervisor._plan.run
    run.make()
    supervisor.loads = ()
    assert start(supervisor, monkeypatch, SERVED) == []
    assert FakeStartup.waited == (("m",), [])
    assert RecordedState.read(run.snapshot).versions == (SERVED,)
    assert not supervisor.has_failures
    assert supervisor._monitor.served.snapshot == ModelSnapshot.of([SERVED])


def test_next_start_restores_the_recorded_models_and_keeps_what_fails(supervisor, monkeypatch):
    plan = supervisor._plan
    plan.run.make()
    bad, gone = replace(SERVED, name="bad"), replace(SERVED, name="gone")
    recorded = (bad, gone, SERVED)
    RecordedState(1, str(plan.store), ("m",), {"m": "1"}, recorded).write(plan.run.snapshot)
    supervisor.loads = tuple(VersionToLoad(version, plan.store, version.archive) for version in (SERVED, bad))
    supervisor.plan_missing = {gone.key: "its archive is gone"}
    messages = start(supervisor, monkeypatch, SERVED, bad)
    assert FakeStartup.waited == ((), [SERVED.key, bad.key])
    assert messages == [
        "restoring the recorded models; to start without them, use scripts/serve --fresh",
        "gone, version 1, could not be reloaded: its archive is gone",
        "bad cannot be loaded",
    ]
    assert supervisor.has_failures
    assert supervisor.missing == {gone.key: "its archive is gone"}
    assert supervisor.lost_defaults == {"gone": "1"}
    assert RecordedState.read(plan.run.snapshot).versions == recorded


def test_front_end_that_does_not_answer_while_restoring_ends_the_start(supervisor, monkeypatch):
    def restore_workers(*_):
        raise client.Unavailable("connection refused")

    supervisor._plan.run.make()
    monkeypatch.setattr(frontend_supervisor.restore, "restore_workers", restore_workers)
    with pytest.raises(FrontendFailed, match="did not answer while models were restored: connection refused"):
        start(supervisor, monkeypatch)
