"""Tests of worker recovery, against a fake of TorchServe's list of workers."""

import os
import time
from dataclasses import dataclass, field, replace

import pytest

from handlers.core.activity import Activity
from tests.unit.serving.fake_client import FakeClient
from torchserve_models import client
from torchserve_models.client import Endpoints
from torchserve_models.serving.health import model_states, worker_recovery
from torchserve_models.serving.health.metrics import SupervisorMetrics
from torchserve_models.serving.health.model_states import ObservedVersion, ObservedWorker
from torchserve_models.serving.health.observations import ServerObservation, Version
from torchserve_models.serving.health.worker_recovery import HangingWorkerKiller, WorkerReplacer

MODEL = ObservedVersion("m", "1", True, "m.mar", 2, 2, 20, 20, 0, 10, ())
ALIVE, LOST, GIVEN_UP = os.getpid(), 2**22 + 1, -1


@dataclass
class FakeTorchServe(FakeClient):
    """Fake that adds workers up to the minimum and removes the last ones above the maximum, like WorkLoadManager."""

    pids: list[int]
    least: int = 2
    most: int = 2
    failures: int = 0
    scaled: list[tuple[int, int]] = field(default_factory=list)

    def scale(self, _name, least, most, _version, synchronous):
        assert not synchronous
        self.scaled.append((least, most))
        if least and self.failures:
            self.failures -= 1
            raise client.Timeout("no answer")
        self.least, self.most = least, most
        self.pids = (self.pids + [ALIVE] * (least - len(self.pids)))[: max(most, 0)]

    def model(self):
        workers = tuple(
            ObservedWorker(str(n), "UNLOADING" if pid == GIVEN_UP else "READY", pid, pid == ALIVE, 1)
            for n, pid in enumerate(self.pids)
        )
        return replace(MODEL, min_workers=self.least, max_workers=self.most, workers=workers)


def metrics():
    return SupervisorMetrics(lambda: (ServerObservation(0.0, 0.0), 0.0))


@pytest.fixture
def start(monkeypatch):
    """Return a function that runs several recovery steps on a server with the given workers."""
    monkeypatch.setattr(worker_recovery, "LOST_TIMEOUT_S", -1.0)
    monkeypatch.setattr(worker_recovery, "GIVEN_UP_TIMEOUT_S", 0.0)
    monkeypatch.setattr(worker_recovery, "INITIAL_REVIVAL_PAUSE_S", 0.05)

    def make(pids, **options):
        server = FakeTorchServe(list(pids), **options)
        monkeypatch.setattr(model_states, "Client", server)
        monkeypatch.setattr(worker_recovery, "Client", server)
        counters = metrics()
        replacements = WorkerReplacer(Endpoints(), counters, lambda _: None)

        def run(checks=6):
            for _ in range(checks):
                replacements.step([server.model()])
            return counters

        return server, replacements, run

    return make


def count(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"torchserve_supervisor_{name}_total", labels)


def test_lost_worker_is_replaced_and_the_other_stays(start):
    server, _, run = start([ALIVE, LOST])
    counters = run()
    assert sorted(server.pids) == [ALIVE, ALIVE, LOST]
    assert server.least == 2
    assert count(counters, "worker_replacements", model="m") == 1


def test_second_lost_worker_is_replaced(start):
    server, _, run = start([ALIVE, LOST])
    run()
    server.pids = [LOST, LOST, ALIVE]
    run()
    assert server.pids.count(ALIVE) == 2
    assert server.least == 2


def test_workers_ended_one_after_another_are_not_lost(start, monkeypatch):
    """A model is scaled down repeatedly, so each poll shows another process that has just ended."""
    server, replacements, _ = start([ALIVE, LOST])
    monkeypatch.setattr(worker_recovery, "LOST_TIMEOUT_S", 0.05)
    for pid in range(LOST, LOST + 6):
        server.pids = [ALIVE, pid]
        replacements.step([server.model()])
        time.sleep(0.03)
    assert server.scaled == []
    for _ in range(3):
        replacements.step([server.model()])
        time.sleep(0.06)
    assert server.scaled


def test_lost_workers_are_dropped_if_none_is_left(start):
    server, _, run = start([LOST, LOST])
    run()
    assert server.pids == [ALIVE, ALIVE]
    assert (server.least, server.most) == (2, 2)


@pytest.mark.parametrize("pids", [[LOST, LOST], [ALIVE, LOST]])
def test_failed_replacement_is_retried(start, pids):
    server, _, run = start(pids, failures=2)
    run()
    assert server.pids.count(ALIVE) == 2
    assert server.least == 2


@pytest.mark.parametrize(("pids", "least"), [([ALIVE, ALIVE], 2), ([ALIVE], 1), ([], 0), ([LOST], 0)])
def test_scaling_by_an_operator_ends_the_repair(start, pids, least):
    server, _, run = start(pids, least=least, most=least)
    run()
    assert server.scaled == []


def test_given_up_model_is_scaled_to_0_and_back(start):
    server, replacements, run = start([GIVEN_UP, GIVEN_UP])
    counters = run()
    assert server.scaled == [(0, 0), (2, 2)]
    assert server.pids == [ALIVE, ALIVE]
    assert replacements.min_workers(server.model()) == 2
    assert count(counters, "model_revivals", model="m") == 1


def test_interrupted_revival_is_completed(start):
    server, replacements, run = start([GIVEN_UP, GIVEN_UP], failures=2)
    run(1)
    assert server.least == 0
    assert (
        replacements.min_workers(server.model()) == 2
    )  # readiness does not mistake this for an operator's change
    run(3)
    assert (server.least, server.most) == (2, 2)
    assert server.pids == [ALIVE, ALIVE]


def test_given_up_worker_beside_another_is_replaced_after_its_timeout(start, monkeypatch):
    server, _, run = start([ALIVE, GIVEN_UP])
    run()
    assert server.scaled == []
    monkeypatch.setattr(worker_recovery, "WORKER_GIVEN_UP_TIMEOUT_S", -1.0)
    run()
    assert sorted(server.pids) == [GIVEN_UP, ALIVE, ALIVE]
    assert server.least == 2


def test_pauses_between_revivals_grow(start, monkeypatch):
    server, _, run = start([GIVEN_UP])
    server.scale = lambda _name, least, *_, **__: server.scaled.append(least)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        counters = run(1)
        time.sleep(0.005)
    # At 0, 0.05, 0.15, 0.35 s and no more.
    assert 3 <= count(counters, "model_revivals", model="m") <= 4


def test_model_with_loading_worker_is_not_given_up(start, monkeypatch):
    server, replacements, _ = start([ALIVE])
    loading = ObservedWorker("1", "UNLOADING", ALIVE, True, 1)
    for _ in range(5):
        replacements.step([replace(MODEL, workers=(loading,))])
    assert server.scaled == []


NOW = 1000.0
BEATING = Activity(NOW - 0.3, 0.0, 0.0, NOW - 60, 0, 5, 5)
COMPUTING = replace(BEATING, batch_started=NOW - 500, progress=NOW - 1, batch_requests=4)
READY = ObservedWorker("1", "READY", 7, True, 1, activity=BEATING)


def hang(worker, seconds=5.0, **options):
    """Return the process ids killed within the given seconds, and the metrics."""
    killed = []
    counters = metrics()
    hanging = HangingWorkerKiller(lambda pid: killed.append(pid) or True, counters, lambda _: None)
    version = Version(replace(MODEL, response_timeout=20, workers=(worker,)), 1, **options)
    for tick in range(int(seconds * 4)):
        hanging.step([version], NOW + tick / 4)
        if worker.activity and NOW - worker.activity.heartbeat < 1:  # the worker continues its heartbeats
            activity = replace(worker.activity, heartbeat=NOW + tick / 4)
            version = replace(
                version, model=replace(version.model, workers=(replace(worker, activity=activity),))
            )
    return killed, counters


@pytest.mark.parametrize(
    ("worker", "options", "reason"),
    [
        (replace(READY, stopped=True), {}, "suspended"),
        (replace(READY, stopped=True, activity=None), {}, "suspended"),
        (replace(READY, activity=replace(BEATING, heartbeat=NOW - 9)), {}, "unresponsive"),
        (replace(READY, activity=replace(COMPUTING, progress=NOW - 26)), {}, "stuck"),
        (READY, {"queue_stalled_s": 25.0}, "starved"),
    ],
)
def test_hanging_worker_is_killed_once(worker, options, reason):
    killed, counters = hang(worker, **options)
    assert killed == [7]
    assert count(counters, "worker_kills", model="m", reason=reason) == 1


@pytest.mark.parametrize(
    "worker",
    [
        READY,
        replace(READY, activity=COMPUTING),
        replace(READY, activity=None),
        replace(READY, status="UNLOADING", stopped=True),
        replace(READY, status="UNLOADING", activity=replace(BEATING, heartbeat=NOW - 100)),
        replace(READY, alive=False, activity=None),
    ],
)
def test_working_or_loading_worker_is_not_killed(worker):
    assert hang(worker)[0] == []


def test_pause_of_the_machine_kills_no_worker():
    """Each heartbeat is old in the first step and new in the following steps."""
    old = replace(READY, activity=replace(BEATING, heartbeat=NOW - 60))
    assert hang(old, seconds=1.0)[0] == []


def test_model_with_outdated_description_is_not_repaired(start):
    """A client may have scaled the model since the last description."""
    server, replacements, _ = start([LOST, ALIVE], least=2)
    for _ in range(3):
        replacements.step([server.model()], unknown={"m"})
    assert server.scaled == []
    for _ in range(2):
        replacements.step([server.model()])
    assert server.scaled != []


def test_hanging_management_api_is_waited_for_once_a_step(start):
    server, replacements, _ = start([LOST, ALIVE], least=2, failures=2)
    models = [replace(server.model(), name=name) for name in ("a", "b")]
    replacements.step(models)
    assert len(server.scaled) == 1
    for _ in range(3):
        replacements.step(models)
    assert len(server.scaled) > 3
