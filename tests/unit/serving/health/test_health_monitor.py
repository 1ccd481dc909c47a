"""Tests of the health monitor: scale-downs, registrations, dead workers and unusual model names."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from torchserve_models import client
from torchserve_models.serving.health import health_monitor, in_service, model_poller, registered_models
from torchserve_models.serving.health.health_monitor import HealthMonitor
from torchserve_models.serving.health.http_server import handle_get
from torchserve_models.serving.health.model_poller import ModelPoller
from torchserve_models.serving.health.model_states import ObservedVersion, ObservedWorker, ServerDescription
from torchserve_models.serving.run_config.ports import Ports
from torchserve_models.serving.run_config.run_plan import plan_run

READY = ObservedWorker("1", "READY", os.getpid(), True, 1)
LOADING = replace(READY, status="UNLOADING")
MODEL = ObservedVersion("m", "1", True, "m.mar", 1, 1, 20, 20, 0, 10, (READY,))
OTHER = replace(MODEL, name="other")


class Scene:
    """Health monitor of a running server with the given models; its threads are not started."""

    def __init__(self, tmp_path, monkeypatch):
        self.messages = []
        self.models = [MODEL]
        self.undescribed = {}
        self.error = None
        self.unreached = {}
        plan = plan_run(["m"], tmp_path, tmp_path)
        plan.run.make()
        self.poller = ModelPoller(plan.endpoints, self.messages.append)
        self.monitor = HealthMonitor(plan, self.poller, self.messages.append)
        monkeypatch.setattr(model_poller, "describe_server", self._survey)
        self.monitor.serve([MODEL])

    def _survey(self, _connection, _timeout, answered, _first):
        if self.error:
            raise self.error
        answered()
        return ServerDescription(tuple(self.models), self.undescribed, self.unreached)

    def check(self, *models, undescribed=None, unreached=None, strict=False):
        """Return why the server is not ready after TorchServe describes these models; None if it is ready."""
        self.models, self.undescribed, self.unreached = list(models), undescribed or {}, unreached or {}
        self.monitor._take(self.poller.poll())
        self.monitor._observe()
        return self.monitor.snapshot().report(time.monotonic()).problem(strict)


@pytest.fixture
def scene(tmp_path, monkeypatch):
    return Scene(tmp_path, monkeypatch)


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def kill(process):
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_monitor_is_ready_as_soon_as_it_serves(scene):
    assert scene.monitor.problem() is None
    assert scene.monitor.phase == "running"
    scene.monitor.phase = "stopping"
    assert scene.monitor.problem() == "the server is stopping"


def test_stopping_server_is_never_reported_ready_again(scene, monkeypatch):
    """A signal may arrive at any time, also during `serve` or right before a restart."""
    begin = scene.monitor._known.begin

    def signal_meanwhile(*arguments):
        scene.monitor.phase = "stopping"
        begin(*arguments)

    monkeypatch.setattr(scene.monitor._known, "begin", signal_meanwhile)
    scene.monitor.serve([MODEL])
    scene.monitor.phase = "restarting"
    scene.monitor.phase = "running"
    assert scene.monitor.phase == "stopping"
    assert scene.monitor.problem() == "the server is stopping"


def test_registered_model_counts_once_it_was_ready(scene, monkeypatch):
    assert scene.check(MODEL, replace(OTHER, workers=(LOADING,))) is None
    assert scene.check(MODEL, OTHER) is None
    assert scene.check(MODEL, replace(OTHER, workers=(LOADING,))) is not None
    assert scene.check(MODEL) is None  # unregistered


def test_slow_registration_counts_after_its_limit(scene, monkeypatch):
    assert scene.check(MODEL, replace(OTHER, workers=(LOADING,))) is None
    later = time.monotonic() + 20 + 31
    scene.poller.answered_at = later
    monkeypatch.setattr(health_monitor.time, "monotonic", lambda: later)
    assert "other: worker" in scene.check(MODEL, replace(OTHER, workers=(LOADING,)))


def test_model_scaled_up_from_0_is_like_a_registration(scene):
    assert scene.check(replace(MODEL, min_workers=0, workers=()), OTHER) is None
    assert scene.check(replace(MODEL, workers=(LOADING,)), OTHER) is None
    assert scene.check(MODEL, OTHER) is None
    assert scene.check(replace(MODEL, workers=(LOADING,)), OTHER) is not None


@pytest.mark.parametrize("min_workers", [0, 1])
def test_killed_worker_is_distinguished_from_a_scaled_down_one(scene, child, min_workers):
    model = replace(MODEL, workers=(replace(READY, pid=child.pid),))
    assert scene.check(model) is None
    scene.poller._wake.clear()
    kill(child)
    scene.monitor._observe()
    assert scene.monitor.problem() is None
    assert [version.key for version in scene.monitor.snapshot().versions] == [("m", "1")]
    assert scene.poller._wake.is_set()  # TorchServe is polled at once
    assert (scene.check(replace(model, min_workers=min_workers)) is None) == (min_workers == 0)


def test_worker_death_counts_after_a_second_without_confirmation(scene, child):
    assert scene.check(replace(MODEL, workers=(replace(READY, pid=child.pid),))) is None
    kill(child)
    scene.monitor._observe()
    assert scene.monitor.problem() is None
    time.sleep(in_service.CONFIRM_LIMIT_S + 0.05)
    scene.monitor._observe()
    assert scene.monitor.problem() == f"m: worker {child.pid} has died"


def test_undescribable_model_is_logged_once(scene):
    for _ in range(10):
        assert scene.check(MODEL, undescribed={"a/b": "no such model"}) is None
    assert scene.messages == ["a/b: TorchServe lists this model but cannot describe it: no such model"]
    assert scene.monitor.snapshot().undescribed == {"a/b": "no such model"}
    assert scene.check(MODEL) is None
    assert scene.monitor.snapshot().undescribed == {}


def test_model_that_can_no_longer_be_described_keeps_its_state(scene, child):
    model = replace(MODEL, workers=(replace(READY, pid=child.pid),))
    assert scene.check(model) is None
    assert scene.check(undescribed={"m": "internal error"}) is None
    kill(child)
    scene.monitor._observe()
    assert scene.check(undescribed={"m": "internal error"}) is None  # it may just be unregistered
    time.sleep(in_service.CONFIRM_LIMIT_S + 0.05)
    assert scene.check(undescribed={"m": "internal error"}) == f"m: worker {child.pid} has died"


def test_silent_front_end_keeps_the_known_state(scene, monkeypatch):
    scene.error = client.Timeout("no answer")
    assert scene.check() is None
    scene.poller.answered_at -= 11
    scene.monitor._observe()
    assert "the front end has not answered for 11 s" in scene.monitor.problem()
    assert scene.monitor.front_end_silent_s > 10


def test_unreached_model_keeps_its_state_until_it_is_stale(scene, monkeypatch):
    assert scene.check(MODEL, OTHER) is None
    assert scene.check(MODEL, unreached={"other": "no time"}, strict=True) is None
    assert ("other", "1") in [version.key for version in scene.monitor.snapshot().versions]
    monkeypatch.setattr(registered_models, "UNREACHED_LIMIT_S", 0.0)
    time.sleep(0.01)
    assert scene.check(MODEL, unreached={"other": "no time"}) is None
    assert "other: TorchServe cannot describe the model: no time" in scene.check(
        MODEL, unreached={"other": "no time"}, strict=True
    )
    assert scene.check(MODEL, OTHER, strict=True) is None


def test_model_that_was_never_reached_is_unknown(scene):
    scene.check(MODEL, unreached={"new": "no time"})
    assert handle_get(scene.monitor, "/readyz/new")[0] == 503
    assert handle_get(scene.monitor, "/readyz/newer")[0] == 404


def test_models_are_known_but_not_ready_after_a_restart(scene, child):
    model = replace(MODEL, workers=(replace(READY, pid=child.pid),))
    assert scene.check(model) is None
    scene.monitor.phase = "restarting"
    assert handle_get(scene.monitor, "/readyz/m")[0] == 503
    kill(child)
    scene.poller._wake.clear()
    scene.monitor.serve(())
    assert scene.poller._wake.is_set()
    status, _, body = handle_get(scene.monitor, "/readyz/m")
    assert (status, b"has died" in body) == (503, True)
    assert scene.monitor.problem() is not None
    assert scene.check(MODEL) is None


def test_counters_of_registered_models_start_at_0(scene):
    def killed(name):
        labels = {"model": name, "reason": "stuck"}
        return scene.monitor.metrics.registry.get_sample_value(
            "torchserve_supervisor_worker_kills_total", labels
        )

    scene.check(MODEL, OTHER)
    scene.monitor.metrics.kills.labels("m", "stuck").inc()
    assert (killed("m"), killed("other"), killed("absent")) == (1, 0, None)
    scene.check(MODEL)
    assert (killed("m"), killed("other")) == (1, None)


def test_failing_log_does_not_stop_the_monitor(scene):
    def info(_):
        raise OSError("disk full")

    scene.monitor._info = info
    for _ in range(5):
        assert scene.check(MODEL, undescribed={"a/b": "no such model"}) is None


def test_threads_start_and_end(tmp_path, request):
    reservations = ExitStack()
    request.addfinalizer(reservations.close)
    plan = plan_run(["m"], tmp_path, tmp_path, ports=Ports.reserve(reservations))
    plan.run.make()
    monitor = HealthMonitor(plan, ModelPoller(plan.endpoints, lambda _: None), lambda _: None)
    monitor.start()
    try:
        assert monitor.problem() == "the server is starting"
        time.sleep(0.6)
        assert monitor.stalled_s < 0.5
    finally:
        monitor.close()
    monitor.close()
