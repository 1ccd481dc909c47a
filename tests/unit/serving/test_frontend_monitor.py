"""When a front end counts as hung, and when as merely slow; when it has run out of memory."""

import socket
import threading

import pytest

from handlers.core.activity import ActivityWriter
from serving.frontend_monitor import AnswerClock, MemoryFailures, finished_batches, is_answering


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
