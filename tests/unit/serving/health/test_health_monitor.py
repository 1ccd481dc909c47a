"""What the monitor makes of descriptions that change: scale-downs, registrations, deaths, names that are odd."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from torchserve_models import client
from torchserve_models.serving.health import health_monitor, model_poller, readiness, registered_models
from torchserve_models.serving.health.health_monitor import HealthMonitor
from torchserve_models.serving.health.http_server import handle_get
from torchserve_models.serving.health.model_poller import ModelPoller
from torchserve_models.serving.health.model_states import Model, Survey, Worker
from torchserve_models.serving.run_config.ports import Ports
from torchserve_models.serving.run_config.run_plan import plan

READY = Worker("1", "READY", os.getpid(), True, 1)
LOADING = replace(READY, status="UNLOADING")
MODEL = Model("m", "1", True, "m.mar", 1, 1, 20, 20, 0, 10, (READY,))
OTHER = replace(MODEL, name="other")


class Scene:
    """A monitor of a running server with these models, whose threads are not started."""

    def __init__(self, tmp_path, monkeypatch):
        self.said = []
        self.models = [MODEL]
        self.undescribed = {}
        self.error = None
        self.unreached = {}
        made = plan(["m"], tmp_path, tmp_path)
        made.run.make()
        self.poller = ModelPoller(made.endpoints, self.said.append)
        self.monitor = HealthMonitor(made, self.poller, self.said.append)
        monkeypatch.setattr(model_poller, "survey", self._survey)
        self.monitor.serve([MODEL])

    def _survey(self, _connection, _timeout, answered, _first):
        if self.error:
            raise self.error
        answered()
        return Survey(tuple(self.models), self.undescribed, self.unreached)

    def look(self, *models, undescribed=None, unreached=None, strict=False):
        """What keeps the server from being ready once TorchServe describes these models."""
        self.models, self.undescribed, self.unreached = list(models), undescribed or {}, unreached or {}
        self.monitor._take(self.poller.poll())
        self.monitor._observe()
        return readiness.server_problem(self.monitor.snapshot(), time.monotonic(), strict=strict)


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


def test_it_is_ready_at_once_when_it_begins_to_serve(scene):
    assert scene.monitor.problem() is None
    assert scene.monitor.phase == "running"
    scene.monitor.phase = "stopping"
    assert scene.monitor.problem() == "the server is stopping"


def test_nothing_brings_a_server_back_that_has_been_told_to_stop(scene, monkeypatch):
    """A signal may come at any moment, also within `serve`, or right before a restart is noticed."""
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


def test_a_registration_counts_once_the_model_was_ready(scene, monkeypatch):
    assert scene.look(MODEL, replace(OTHER, workers=(LOADING,))) is None
    assert scene.look(MODEL, OTHER) is None
    assert scene.look(MODEL, replace(OTHER, workers=(LOADING,))) is not None
    assert scene.look(MODEL) is None  # unregistered


def test_a_registration_that_takes_too_long_counts(scene, monkeypatch):
    assert scene.look(MODEL, replace(OTHER, workers=(LOADING,))) is None
    later = time.monotonic() + 20 + 31
    scene.poller.answered_at = later
    monkeypatch.setattr(health_monitor.time, "monotonic", lambda: later)
    assert "other: worker" in scene.look(MODEL, replace(OTHER, workers=(LOADING,)))


def test_a_model_that_comes_back_from_0_is_like_a_registration(scene):
    assert scene.look(replace(MODEL, min_workers=0, workers=()), OTHER) is None
    assert scene.look(replace(MODEL, workers=(LOADING,)), OTHER) is None
    assert scene.look(MODEL, OTHER) is None
    assert scene.look(replace(MODEL, workers=(LOADING,)), OTHER) is not None


@pytest.mark.parametrize("min_workers", [0, 1])
def test_a_worker_that_is_killed_is_told_from_one_that_is_scaled_away(scene, child, min_workers):
    model = replace(MODEL, workers=(replace(READY, pid=child.pid),))
    assert scene.look(model) is None
    scene.poller._wake.clear()
    kill(child)
    scene.monitor._observe()
    assert scene.monitor.problem() is None
    assert scene.monitor.snapshot().named("m") is not None
    assert scene.poller._wake.is_set()  # TorchServe is asked at once
    assert (scene.look(replace(model, min_workers=min_workers)) is None) == (min_workers == 0)


def test_a_death_counts_after_a_second_when_torchserve_cannot_be_asked(scene, child):
    assert scene.look(replace(MODEL, workers=(replace(READY, pid=child.pid),))) is None
    kill(child)
    scene.monitor._observe()
    assert scene.monitor.problem() is None
    time.sleep(health_monitor.CONFIRM_LIMIT_S + 0.05)
    scene.monitor._observe()
    assert scene.monitor.problem() == f"m: worker {child.pid} has died"


def test_a_name_that_cannot_be_described_is_logged_once(scene):
    for _ in range(10):
        assert scene.look(MODEL, undescribed={"a/b": "no such model"}) is None
    assert scene.said == ["a/b: TorchServe lists this model and cannot describe it: no such model"]
    assert scene.monitor.snapshot().undescribed == {"a/b": "no such model"}
    assert scene.look(MODEL) is None
    assert scene.monitor.snapshot().undescribed == {}


def test_a_model_that_cannot_be_described_any_more_is_judged_by_what_was_known(scene, child):
    model = replace(MODEL, workers=(replace(READY, pid=child.pid),))
    assert scene.look(model) is None
    assert scene.look(undescribed={"m": "internal error"}) is None
    kill(child)
    scene.monitor._observe()
    assert scene.look(undescribed={"m": "internal error"}) is None  # it may just be unregistered
    time.sleep(health_monitor.CONFIRM_LIMIT_S + 0.05)
    assert scene.look(undescribed={"m": "internal error"}) == f"m: worker {child.pid} has died"


def test_a_front_end_that_does_not_answer_keeps_what_is_known(scene, monkeypatch):
    scene.error = client.Timeout("no answer")
    assert scene.look() is None
    scene.poller.answered_at -= 11
    scene.monitor._observe()
    assert "the front end has not answered for 11 s" in scene.monitor.problem()
    assert scene.monitor.front_end_silent_s > 10


def test_a_model_that_the_time_did_not_suffice_for_stays_as_it_was_and_becomes_stale(scene, monkeypatch):
    assert scene.look(MODEL, OTHER) is None
    assert scene.look(MODEL, unreached={"other": "no time"}, strict=True) is None
    assert scene.monitor.snapshot().named("other") is not None
    monkeypatch.setattr(registered_models, "UNREACHED_LIMIT_S", 0.0)
    time.sleep(0.01)
    assert scene.look(MODEL, unreached={"other": "no time"}) is None
    assert "other: it cannot be described: no time" in scene.look(
        MODEL, unreached={"other": "no time"}, strict=True
    )
    assert scene.look(MODEL, OTHER, strict=True) is None


def test_a_model_that_was_never_reached_is_unknown(scene):
    scene.look(MODEL, unreached={"new": "no time"})
    assert handle_get(scene.monitor, "/readyz/new")[0] == 503
    assert handle_get(scene.monitor, "/readyz/newer")[0] == 404


def test_the_models_of_before_are_there_and_not_ready_right_after_a_restart(scene, child):
    model = replace(MODEL, workers=(replace(READY, pid=child.pid),))
    assert scene.look(model) is None
    scene.monitor.phase = "restarting"
    assert handle_get(scene.monitor, "/readyz/m")[0] == 503
    kill(child)
    scene.poller._wake.clear()
    scene.monitor.serve(())
    assert scene.poller._wake.is_set()
    status, _, body = handle_get(scene.monitor, "/readyz/m")
    assert (status, b"has died" in body) == (503, True)
    assert scene.monitor.problem() is not None
    assert scene.look(MODEL) is None


def test_each_counter_of_a_registered_model_begins_at_0(scene):
    def killed(name):
        labels = {"model": name, "reason": "stuck"}
        return scene.monitor.metrics.registry.get_sample_value(
            "torchserve_supervisor_worker_kills_total", labels
        )

    scene.look(MODEL, OTHER)
    scene.monitor.metrics.kills.labels("m", "stuck").inc()
    assert (killed("m"), killed("other"), killed("absent")) == (1, 0, None)
    scene.look(MODEL)
    assert (killed("m"), killed("other")) == (1, None)


def test_a_log_that_cannot_be_written_stops_nothing(scene):
    def info(_):
        raise OSError("disk full")

    scene.monitor._info = info
    for _ in range(5):
        assert scene.look(MODEL, undescribed={"a/b": "no such model"}) is None


def test_the_threads_start_and_end(tmp_path):
    made = plan(["m"], tmp_path, tmp_path, ports=Ports.free())
    made.run.make()
    monitor = HealthMonitor(made, ModelPoller(made.endpoints, lambda _: None), lambda _: None)
    monitor.start()
    try:
        assert monitor.problem() == "the server is starting"
        time.sleep(0.6)
        assert monitor.stalled_s < 0.5
    finally:
        monitor.close()
    monitor.close()
