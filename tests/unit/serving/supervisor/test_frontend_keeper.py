"""Restarts of a front end that is only played: backoff, attempts that fail, what is restored, and the limit."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from torchserve_models.serving.errors import FrontendFailed, Interrupted
from torchserve_models.serving.lifecycle.restore import RestorePlan
from torchserve_models.serving.lifecycle.snapshot import ServedVersion, Snapshot
from torchserve_models.serving.run_config.run_plan import plan
from torchserve_models.serving.supervisor import frontend_keeper
from torchserve_models.serving.supervisor.backoff import Backoff
from torchserve_models.serving.supervisor.frontend_keeper import FrontendKeeper

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
def keeper(tmp_path, monkeypatch):
    """Its starts succeed unless a test adds errors to `failures`."""
    made = FrontendKeeper(plan(["m"], tmp_path, tmp_path / "run"), None, print, lambda: None, lambda _: None)
    made.plan_missing, made.failures, made.adjusted = {}, [], []
    made.frontend, made.snapshot = FakeFrontend(), Snapshot.of([SERVED])
    made._backoff = Backoff(initial_delay_s=0.0, max_delay_s=0.0, max_restarts=3)

    @contextmanager
    def in_store(*_):
        yield {}

    def launch(_settings):
        if made.failures:
            raise made.failures.pop(0)
        made.frontend = FakeFrontend()

    def restore_workers(_endpoints, served, _pause):
        made.adjusted.append(list(served))
        return {}

    monkeypatch.setattr(made, "launch", launch)
    monkeypatch.setattr(made, "_wait_for_ports", lambda: None)
    monkeypatch.setattr(frontend_keeper, "FrontendMonitor", FakeMonitor)
    monkeypatch.setattr(frontend_keeper, "wait_for_frontend", lambda *_: None)
    monkeypatch.setattr(frontend_keeper.restore, "archives_in_store", in_store)
    monkeypatch.setattr(frontend_keeper.restore, "restore_workers", restore_workers)
    monkeypatch.setattr(
        frontend_keeper.restore, "plan_restore", lambda *_: RestorePlan((), dict(made.plan_missing))
    )
    yield made
    made.close()


def test_each_problem_is_a_reason(keeper):
    assert keeper.problem() is None
    keeper.frontend.stopped = True
    assert keeper.problem()[0] == "stopped"
    keeper.frontend.is_running = False
    assert keeper.problem() == ("ended", "it ended unexpectedly (killed by SIGKILL)")
    keeper.frontend = FakeFrontend()
    keeper._monitor = FakeMonitor(*[None] * 5)
    keeper._monitor.problem = ("no_answer", "silent")
    assert keeper.problem() == ("no_answer", "silent")


def test_a_restart_ends_the_old_one_and_goes_on_after_failed_attempts(keeper):
    old = keeper.frontend
    keeper.failures[:] = [FrontendFailed("no Java"), ValueError("a mistake of ours")]
    keeper.restart("ended", "killed")
    assert old.ended == [0.0, 0.0, 0.0]
    assert keeper.frontend is not old
    assert keeper.adjusted == [[]]


def test_the_limit_ends_it_but_not_where_requests_used_up_the_memory(keeper, monkeypatch):
    for _ in range(3):
        keeper.restart("ended", "killed")
    with pytest.raises(FrontendFailed, match=r"does not stay up: .* in a row .*killed"):
        keeper.restart("ended", "killed")
    monkeypatch.setattr(frontend_keeper, "_MAX_DELAY_S", 0.0)
    keeper.restart("out_of_memory", "no direct memory")


def test_who_asks_for_the_end_gets_it(keeper):
    def check():
        raise Interrupted("stopped")

    keeper._check = check
    with pytest.raises(Interrupted):
        keeper.restart("ended", "killed")


def test_a_version_is_missing_until_it_is_there(keeper):
    keeper.plan_missing = {SERVED.key: "its archive is gone"}
    keeper.restart("ended", "killed")
    served = keeper._monitor.served
    other = replace(SERVED, version="2")
    assert keeper.missing == {SERVED.key: "its archive is gone"}
    assert keeper.lost_defaults == {"m": "1"}
    served.update([other])  # TorchServe makes it the default one
    keeper._save(served)
    assert keeper.missing == {SERVED.key: "its archive is gone"}
    assert keeper.lost_defaults == {"m": "1"}
    served.update([SERVED, replace(other, default=False)])
    keeper._save(served)
    assert keeper.missing == {}
    assert keeper.lost_defaults == {}


def test_a_version_that_is_not_the_default_one_is_no_lost_default(keeper):
    other = replace(SERVED, version="2", default=False)
    keeper.snapshot = Snapshot.of([SERVED, other])
    keeper.plan_missing = {other.key: "its archive is gone"}
    keeper.restart("ended", "killed")
    assert (keeper.missing, keeper.lost_defaults) == ({other.key: "its archive is gone"}, {})
