"""Which requests of a batch are begun."""

import time
from collections import deque
from dataclasses import replace

import pytest

from handlers.core.admission import Admission, BatchClock
from handlers.core.deadline import Arrival
from handlers.core.edge import EdgeReader
from handlers.core.errors import InvalidRequest

NOW = 1000.0


@pytest.fixture
def edge(tmp_path, monkeypatch):
    """The proxy's folder, at a moment that stands still."""
    monkeypatch.setattr(time, "monotonic", lambda: NOW)
    (tmp_path / "left").mkdir()
    (tmp_path / "wait").mkdir()
    return tmp_path


@pytest.fixture
def admission(edge):
    """Batches of 4 take 1 second."""
    admission = Admission(EdgeReader(edge, "model"), 4)
    admission.finished(4, 1.0)
    return admission


def aged(*ages, timeout=None):
    return [Arrival(NOW - age, NOW - age + timeout if timeout is not None else None) for age in ages]


def reasons(admission, arrivals):
    return [refusal and refusal.reason for refusal in admission.check_batch(arrivals)]


def test_what_is_too_late_is_not_begun(admission, edge):
    (edge / "left" / ("a" * 32)).touch()
    arrivals = [
        Arrival(NOW),
        Arrival(NOW - 3, deadline=NOW),
        Arrival(NOW, edge_id="a" * 32),
        Arrival(NOW, edge_id="b" * 32),
        Arrival(NOW, error=InvalidRequest("x")),
    ]
    assert reasons(admission, arrivals) == [None, "deadline", "client-left", None, ""]
    codes = [refusal and refusal.error.code for refusal in admission.check_batch(arrivals)]
    assert codes == [None, 504, 504, None, 400]


def test_a_full_batch_refuses_what_its_clients_will_not_wait_for(admission, edge):
    old = aged(4.5, 4.4, 4.3, 4.2)
    assert reasons(admission, old) == [None] * 4  # nobody is known to leave
    (edge / "wait" / "model").write_text("5.000\n")
    assert reasons(admission, old) == ["overload"] * 4
    assert reasons(admission, aged(3.0, 2.9, 2.8, 2.7)) == [None] * 4
    assert reasons(admission, old[:3]) == [None] * 3  # no backlog


def test_a_full_batch_refuses_what_cannot_meet_its_deadline(admission):
    assert reasons(admission, aged(4.5, 4.5, 4.5, 0.3, timeout=5)) == ["overload"] * 3 + [None]
    assert reasons(admission, aged(4.5, 4.5, 4.5, 4.5, timeout=50)) == [None] * 4


def test_a_batch_at_the_limit_is_refused_whole_or_computed_whole(admission, edge):
    (edge / "wait" / "model").write_text("5")
    assert reasons(admission, aged(3.9, 3.8, 3.7, 3.6)) == ["overload"] * 4
    assert reasons(admission, aged(3.7, 3.6, 3.55, 3.4)) == [None] * 4


@pytest.mark.parametrize("wait", ["0", "0.001", "0.5"])
def test_what_has_hardly_waited_is_begun_whatever_is_reported(admission, edge, wait):
    (edge / "wait" / "model").write_text(wait)
    assert reasons(admission, aged(0.2, 0.1, 0.0, 0.0)) == [None] * 4


@pytest.mark.parametrize("content", ["", "x", "nan", "-1", "inf", "9" * 1000])
def test_a_damaged_report_is_none(admission, edge, content):
    (edge / "wait" / "model").write_text(content)
    (edge / "draining").write_text(content)
    assert reasons(admission, aged(4.5, 4.5, 4.5, 4.5)) in ([None] * 4, ["overload"] * 4)
    assert EdgeReader(edge, "model").wait_s() is None or content.startswith("9")


def test_a_server_that_drains_takes_nothing_new(admission, edge):
    (edge / "draining").write_text(f"{time.time() - 10:.3f}")
    arrivals = [replace(arrival, has_start=True) for arrival in aged(11, 1)]
    assert reasons(admission, arrivals) == [None, "draining"]
    assert reasons(admission, aged(1)) == [None]  # it may have been accepted before


def test_a_server_whose_queues_have_been_empty_takes_nothing_new_at_all(admission, edge):
    (edge / "draining").write_text(f"{time.time() - 10:.3f}")
    (edge / "queues-emptied").write_text(f"{time.time() - 2:.3f}")
    assert reasons(admission, aged(1)) == ["draining"]
    started_before = [replace(arrival, has_start=True) for arrival in aged(11)]
    assert reasons(admission, started_before) == [None]


def test_a_batch_that_was_gathered_when_the_queues_were_empty_is_begun(admission, edge):
    (edge / "draining").write_text(f"{time.time() - 10:.3f}")
    (edge / "queues-emptied").write_text(f"{time.time() + 1:.3f}")
    assert reasons(admission, aged(0)) == [None]


def test_model_names_that_are_no_file_names_read_nothing(edge):
    assert EdgeReader(edge, "../left").wait_s() is None
    assert EdgeReader(None, "model").wait_s() is None
    assert not EdgeReader(None, "model").has_left("a" * 32)


def test_the_expected_time_follows_the_batches():
    clock = BatchClock()
    assert clock.expected_s is None
    for _ in range(50):
        clock.add(2.0)
    assert clock.expected_s == pytest.approx(2.0, abs=0.01)
    for seconds in [1.0, 3.0] * 50:
        clock.add(seconds)
    assert 2.3 < clock.expected_s < 3.7


def test_retry_after_is_about_a_batch(edge):
    admission = Admission(EdgeReader(edge, "model"), 1)
    assert admission.retry_after_s == 1
    admission.finished(1, 2.4)
    assert admission.retry_after_s == 3
    admission.finished(1, 5000.0)
    assert admission.retry_after_s == 30


def test_clients_that_give_up_leave_most_of_the_capacity_useful(tmp_path, monkeypatch):
    """Four times what a worker can do for a minute, before a queue of 100; each client leaves after 5 s.

    A second after the last one has left, a request of another client waits for nothing.
    """
    batch, batch_s, patience_s, queue_size = 4, 1.0, 5.0, 100
    now = [NOW]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    (tmp_path / "wait").mkdir()
    (tmp_path / "wait" / "model").write_text(f"{patience_s}")  # as the proxy reports it
    admission = Admission(EdgeReader(tmp_path, "model"), batch)
    later = NOW + 60 + patience_s + 1
    coming = deque([*(NOW + number * batch_s / (4 * batch) for number in range(60 * 4 * batch)), later])
    queue: deque[float] = deque()
    answered: dict[float, float] = {}
    while later not in answered:
        while coming and coming[0] <= now[0]:
            arrived = coming.popleft()
            if len(queue) < queue_size:
                queue.append(arrived)
        taken = [queue.popleft() for _ in range(min(batch, len(queue)))]
        refusals = admission.check_batch([Arrival(arrived) for arrived in taken])
        begun = [arrived for arrived, refusal in zip(taken, refusals, strict=True) if refusal is None]
        now[0] += batch_s if begun else 0.001  # a refusal costs nearly nothing
        admission.finished(len(begun), batch_s)
        answered |= {arrived: now[0] - arrived for arrived in begun}
    assert sum(seconds <= patience_s for seconds in answered.values()) - 1 >= 0.8 * 60 * batch / batch_s
    assert answered[later] <= 1.1 * batch_s
