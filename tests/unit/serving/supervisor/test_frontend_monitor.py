"""Tests of detecting a hung front end or one without direct memory."""

import socket
import threading
import time
from dataclasses import replace

import pytest

from handlers.core.activity import ActivityWriter
from tests.unit.serving.health.observed import MODEL
from torchserve_models.serving.health.model_poller import PollResult
from torchserve_models.serving.health.model_states import ServerDescription
from torchserve_models.serving.lifecycle.snapshot import ModelSnapshot, ServedVersion, SnapshotFilter
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.supervisor import frontend_monitor
from torchserve_models.serving.supervisor.frontend_monitor import (
    DirectMemoryErrorDetector,
    FrontendMonitor,
    HangDetector,
    finished_batches,
    is_answering,
)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def fail(answers, clock, seconds, batches=None, step=2.5):
    for number in range(int(seconds / step)):
        clock.now += step
        answers.record(answered=False, batches=0 if batches is None else batches + number)


def test_silent_front_end_is_hung_until_it_answers(clock):
    answers = HangDetector(clock)
    fail(answers, clock, 10)
    assert answers.hung_for is None
    fail(answers, clock, 5)
    assert answers.hung_for == pytest.approx(15)
    answers.record(answered=True, batches=0)
    assert answers.hung_for is None


def test_front_end_with_finished_batches_is_slow_until_the_limit(clock):
    answers = HangDetector(clock)
    fail(answers, clock, 40, batches=1)
    assert answers.hung_for is None
    fail(answers, clock, 30, batches=100)
    assert answers.hung_for is not None


def test_suspended_supervisor_does_not_count_its_pause(clock):
    answers = HangDetector(clock)
    clock.now += 600
    assert answers.hung_for is None
    answers.record(answered=False, batches=0)
    assert answers.hung_for is None


def test_restart_waits_for_the_end_of_memory_errors_up_to_a_limit(clock):
    memory = DirectMemoryErrorDetector(clock)
    memory.record(
        ["torch.OutOfMemoryError: CUDA out of memory", "2026 ERROR x - java.lang.NullPointerException"]
    )
    clock.now += 100
    assert not memory.demand_restart
    error = "java.lang.OutOfMemoryError: Cannot reserve 16777216 bytes of direct buffer memory (allocated: 5)"
    memory.record([error])
    assert not memory.demand_restart
    clock.now += 2.5
    assert memory.demand_restart
    memory.record([error])
    assert not memory.demand_restart
    for _ in range(4):
        clock.now += 1.9
        memory.record([error])
    assert memory.demand_restart


def test_any_byte_is_an_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert not is_answering(url, "/ping", 0.2)  # only the kernel accepts the connection

        def answer():
            server.accept()[0].close()  # the connection of the first attempt
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert is_answering(url, "/ping", 5.0)
        thread.join()
    assert not is_answering(url, "/ping", 0.5)


def test_batches_of_all_workers_are_summed(tmp_path):
    assert finished_batches(tmp_path / "missing") == 0
    for pid in ("1", "2"):
        writer = ActivityWriter(tmp_path / pid)
        writer.begin_batch(3)
        writer.end_batch()
    (tmp_path / "3").write_text("half a file")
    assert finished_batches(tmp_path) == 2


class FakePoller:
    """Fake poller. `answers` sets the models of the next poll; None is a poll without an answer."""

    def __init__(self):
        self.latest = None
        self.poll_requests = 0

    def ask_soon(self):
        self.poll_requests += 1

    def answers(self, description, started=None, repairing=frozenset()):
        number = self.latest.number + 1 if self.latest else 1
        started = time.monotonic() if started is None else started
        self.latest = PollResult(number, started, 0.0, description, repairing)


SERVED = ServedVersion.of(MODEL)
OTHER = replace(MODEL, version="2", default=False)


class Watched:
    """Front-end monitor whose thread is not started, with the saved snapshots."""

    def __init__(self, tmp_path):
        self.poller = FakePoller()
        self.saved = []
        self.run = RunDir(tmp_path)
        self.run.make()
        self.run.server_log.parent.mkdir(exist_ok=True)
        self.run.server_log.write_text("2026 INFO  main ModelManager - Model before loaded.\n")
        self.served = SnapshotFilter(ModelSnapshot.of([SERVED]))
        self.monitor = FrontendMonitor(
            self.poller, "http://127.0.0.1:9", self.run, self.served, lambda s: self.saved.append(s.snapshot)
        )

    def log(self, line):
        with open(self.run.server_log, "a") as file:
            file.write(f"2026-11-29 10:00:00,000 DEBUG epollEventLoopGroup-3-1 {line}\n")


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


def test_each_survey_is_saved_once(watched):
    watched.monitor.step()
    assert watched.saved == []
    watched.poller.answers(ServerDescription((MODEL, OTHER), {}))
    for _ in range(3):
        watched.monitor.step()
    assert watched.saved == [ModelSnapshot.of([SERVED, ServedVersion.of(OTHER)])]


def test_survey_before_the_restart_is_ignored(watched):
    watched.poller.answers(ServerDescription((), {}), started=watched.monitor._began - 1.0)
    watched.monitor.step()
    assert watched.saved == []


def test_undescribed_or_repaired_models_keep_their_state(watched):
    reviving = replace(MODEL, min_workers=0, max_workers=0)
    for description, repairing in [
        (ServerDescription((), {"m": "internal error"}), frozenset()),
        (ServerDescription((), {}, {"m": "no time"}), frozenset()),
        (ServerDescription((reviving,), {}), frozenset([SERVED.key])),
    ]:
        watched.poller.answers(description, repairing=repairing)
        watched.monitor.step()
    assert watched.saved == [ModelSnapshot.of([SERVED])] * 3


@pytest.mark.parametrize(
    ("line", "poll_requests"),
    [
        ("ModelManager - Model x loaded.", 1),
        ("ModelManager - updateModel: x, count: 2", 1),
        ("ModelVersionedRefs - Setting default version to 2 for model x", 1),
        ("WorkerThread - 9000 Worker disconnected. WORKER_STOPPED", 0),
    ],
)
def test_logged_change_triggers_a_poll(watched, line, poll_requests):
    watched.log(line)
    watched.monitor.step()
    watched.monitor.step()
    assert watched.poller.poll_requests == poll_requests


def test_logged_default_version_is_noted(watched):
    watched.served.lost_defaults["m"] = "1"
    by_itself = replace(OTHER, default=True)
    watched.poller.answers(ServerDescription((by_itself,), {}))
    watched.monitor.step()
    assert not watched.saved[-1].versions[0].default
    watched.log("ModelVersionedRefs - Setting default version to 2 for model other")
    watched.monitor.step()
    assert watched.served.lost_defaults == {"m": "1"}
    watched.log("ModelVersionedRefs - Setting default version to 2 for model m")
    watched.poller.answers(ServerDescription((by_itself,), {}))
    watched.monitor.step()
    assert watched.served.lost_defaults == {}
    assert watched.saved[-1].versions[0].default


def test_inference_is_pinged_only_if_management_is_silent(watched, monkeypatch, clock):
    pings = []
    monkeypatch.setattr(frontend_monitor, "is_answering", lambda *_: pings.append(1))
    watched.monitor._clock = HangDetector(clock)
    watched.poller.answers(ServerDescription((), {}))
    watched.monitor.step()
    assert pings == []
    for _ in range(6):
        clock.now += 2.5
        watched.poller.answers(None)
        watched.monitor.step()
    assert len(pings) == 6
    assert watched.monitor.problem[0] == "no_answer"


def test_error_does_not_end_the_thread(watched, monkeypatch):
    steps = []
    enough = threading.Event()

    def step():
        steps.append(1)
        if len(steps) == 3:
            enough.set()
        raise ValueError("a mistake")

    monkeypatch.setattr(watched.monitor, "step", step)
    watched.monitor.start()
    assert enough.wait(10)
    watched.monitor.close()


def test_nothing_is_saved_after_the_end(watched):
    watched.monitor.close()
    watched.poller.answers(ServerDescription((MODEL,), {}))
    watched.monitor.step()
    assert watched.saved == []
