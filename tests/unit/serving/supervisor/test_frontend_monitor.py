"""When a front end counts as hung, and when as merely slow; when it has run out of memory."""

import socket
import threading
import time
from dataclasses import replace

import pytest

from handlers.core.activity import ActivityWriter
from tests.unit.serving.health.test_readiness import MODEL
from torchserve_models.serving.health.model_poller import Poll
from torchserve_models.serving.health.model_states import Survey
from torchserve_models.serving.lifecycle.snapshot import ServedVersion, Snapshot, SnapshotFilter
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.supervisor import frontend_monitor
from torchserve_models.serving.supervisor.frontend_monitor import (
    AnswerClock,
    FrontendMonitor,
    MemoryFailures,
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


def test_one_that_answers_nothing_is_hung_and_one_answer_clears_it(clock):
    answers = AnswerClock(clock)
    fail(answers, clock, 10)
    assert answers.hung_for is None
    fail(answers, clock, 5)
    assert answers.hung_for == pytest.approx(15)
    answers.record(answered=True, batches=0)
    assert answers.hung_for is None


def test_one_whose_workers_finish_batches_is_slow_until_it_is_too_long(clock):
    answers = AnswerClock(clock)
    fail(answers, clock, 40, batches=1)
    assert answers.hung_for is None
    fail(answers, clock, 30, batches=100)
    assert answers.hung_for is not None


def test_a_supervisor_that_was_suspended_does_not_blame_the_front_end(clock):
    answers = AnswerClock(clock)
    clock.now += 600
    assert answers.hung_for is None
    answers.record(answered=False, batches=0)
    assert answers.hung_for is None


def test_a_restart_waits_until_the_errors_have_stopped_but_not_for_ever(clock):
    memory = MemoryFailures(clock)
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


def test_any_answer_at_all_is_an_answer_and_silence_is_none():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert not is_answering(url, "/ping", 0.2)  # accepted by the kernel alone

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


def test_batches_of_all_workers_are_counted(tmp_path):
    assert finished_batches(tmp_path / "missing") == 0
    for pid in ("1", "2"):
        writer = ActivityWriter(tmp_path / pid)
        writer.begin_batch(3)
        writer.end_batch()
    (tmp_path / "3").write_text("half a file")
    assert finished_batches(tmp_path) == 2


class FakePoller:
    """Its `answers` makes it learn these models; None for an attempt without an answer."""

    def __init__(self):
        self.latest = None
        self.hurried = 0

    def ask_soon(self):
        self.hurried += 1

    def answers(self, survey, started=None, repairing=frozenset()):
        number = self.latest.number + 1 if self.latest else 1
        started = time.monotonic() if started is None else started
        self.latest = Poll(number, started, 0.0, survey, repairing)


SERVED = ServedVersion.of(MODEL)
OTHER = replace(MODEL, version="2", default=False)


class Watched:
    """A monitor whose thread is not started, and what it has saved."""

    def __init__(self, tmp_path):
        self.poller = FakePoller()
        self.saved = []
        self.run = RunDir(tmp_path)
        self.run.make()
        self.run.server_log.parent.mkdir(exist_ok=True)
        self.run.server_log.write_text("2026 INFO  main ModelManager - Model before loaded.\n")
        self.served = SnapshotFilter(Snapshot.of([SERVED]))
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
    watched.poller.answers(Survey((MODEL, OTHER), {}))
    for _ in range(3):
        watched.monitor.step()
    assert watched.saved == [Snapshot.of([SERVED, ServedVersion.of(OTHER)])]


def test_a_survey_that_began_before_this_life_of_the_front_end_is_not_about_it(watched):
    watched.poller.answers(Survey((), {}), started=watched.monitor._began - 1.0)
    watched.monitor.step()
    assert watched.saved == []


def test_what_could_not_be_described_or_is_being_repaired_stays_as_it_was(watched):
    reviving = replace(MODEL, min_workers=0, max_workers=0)
    for survey, repairing in [
        (Survey((), {"m": "internal error"}), frozenset()),
        (Survey((), {}, {"m": "no time"}), frozenset()),
        (Survey((reviving,), {}), frozenset([SERVED.key])),
    ]:
        watched.poller.answers(survey, repairing=repairing)
        watched.monitor.step()
    assert watched.saved == [Snapshot.of([SERVED])] * 3


@pytest.mark.parametrize(
    ("line", "hurried"),
    [
        ("ModelManager - Model x loaded.", 1),
        ("ModelManager - updateModel: x, count: 2", 1),
        ("ModelVersionedRefs - Setting default version to 2 for model x", 1),
        ("WorkerThread - 9000 Worker disconnected. WORKER_STOPPED", 0),
    ],
)
def test_a_change_in_the_log_makes_the_poller_hurry(watched, line, hurried):
    watched.log(line)
    watched.monitor.step()
    watched.monitor.step()
    assert watched.poller.hurried == hurried


def test_setting_the_default_version_settles_which_one_it_is(watched):
    watched.served.lost_defaults["m"] = "1"
    by_itself = replace(OTHER, default=True)
    watched.poller.answers(Survey((by_itself,), {}))
    watched.monitor.step()
    assert not watched.saved[-1].versions[0].default
    watched.log("ModelVersionedRefs - Setting default version to 2 for model other")
    watched.monitor.step()
    assert watched.served.lost_defaults == {"m": "1"}
    watched.log("ModelVersionedRefs - Setting default version to 2 for model m")
    watched.poller.answers(Survey((by_itself,), {}))
    watched.monitor.step()
    assert watched.served.lost_defaults == {}
    assert watched.saved[-1].versions[0].default


def test_inference_is_pinged_only_when_management_does_not_answer(watched, monkeypatch, clock):
    pings = []
    monkeypatch.setattr(frontend_monitor, "is_answering", lambda *_: pings.append(1))
    watched.monitor._clock = AnswerClock(clock)
    watched.poller.answers(Survey((), {}))
    watched.monitor.step()
    assert pings == []
    for _ in range(6):
        clock.now += 2.5
        watched.poller.answers(None)
        watched.monitor.step()
    assert len(pings) == 6
    assert watched.monitor.problem[0] == "no_answer"


def test_an_error_does_not_end_the_thread(watched, monkeypatch):
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
    watched.poller.answers(Survey((MODEL,), {}))
    watched.monitor.step()
    assert watched.saved == []
