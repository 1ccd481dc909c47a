"""Tests of the admission controller, which rejects late requests."""

import time
from collections import deque
from dataclasses import replace

import pytest

from handlers.core.admission import AdmissionController, BatchDuration
from handlers.core.deadline import RequestTiming
from handlers.core.disconnect_events import DisconnectEventsReader
from handlers.core.errors import InvalidRequest

NOW = 1000.0


@pytest.fixture
def edge(tmp_path, monkeypatch):
    """Return the folder of edge events, with the clock stopped."""
    monkeypatch.setattr(time, "monotonic", lambda: NOW)
    (tmp_path / "left").mkdir()
    (tmp_path / "wait").mkdir()
    return tmp_path


@pytest.fixture
def admission(edge):
    """Return a controller that expects batches of 4 to take 1 second."""
    admission = AdmissionController(DisconnectEventsReader(edge, "model"), 4)
    admission.record_batch(4, 1.0)
    return admission


def aged(*ages, timeout=None):
    return [RequestTiming(NOW - age, NOW - age + timeout if timeout is not None else None) for age in ages]


def reasons(admission, timings):
    return [rejection and rejection.reason for rejection in admission.check_batch(timings)]


def test_late_requests_are_rejected(admission, edge):
    (edge / "left" / ("a" * 32)).touch()
    timings = [
        RequestTiming(NOW),
        RequestTiming(NOW - 3, deadline=NOW),
        RequestTiming(NOW, edge_id="a" * 32),
        RequestTiming(NOW, edge_id="b" * 32),
        RequestTiming(NOW, error=InvalidRequest("x")),
    ]
    assert reasons(admission, timings) == [None, "deadline", "client-left", None, ""]
    codes = [rejection and rejection.error.code for rejection in admission.check_batch(timings)]
    assert codes == [None, 504, 504, None, 400]


def test_full_batch_rejects_requests_whose_clients_will_disconnect(admission, edge):
    old = aged(4.5, 4.4, 4.3, 4.2)
    assert reasons(admission, old) == [None] * 4  # no client is known to disconnect
    (edge / "wait" / "model").write_text("5.000\n")
    assert reasons(admission, old) == ["overload"] * 4
    assert reasons(admission, aged(3.0, 2.9, 2.8, 2.7)) == [None] * 4
    assert reasons(admission, old[:3]) == [None] * 3  # no backlog


def test_full_batch_rejects_requests_that_cannot_meet_their_deadline(admission):
    assert reasons(admission, aged(4.5, 4.5, 4.5, 0.3, timeout=5)) == ["overload"] * 3 + [None]
    assert reasons(admission, aged(4.5, 4.5, 4.5, 4.5, timeout=50)) == [None] * 4


def test_batch_at_the_limit_is_rejected_or_computed_as_a_whole(admission, edge):
    (edge / "wait" / "model").write_text("5")
    assert reasons(admission, aged(3.9, 3.8, 3.7, 3.6)) == ["overload"] * 4
    assert reasons(admission, aged(3.7, 3.6, 3.55, 3.4)) == [None] * 4


@pytest.mark.parametrize("wait", ["0", "0.001", "0.5"])
def test_recent_request_is_computed_regardless_of_edge_events(admission, edge, wait):
    (edge / "wait" / "model").write_text(wait)
    assert reasons(admission, aged(0.2, 0.1, 0.0, 0.0)) == [None] * 4


@pytest.mark.parametrize("content", ["", "x", "nan", "-1", "inf", "9" * 1000])
def test_damaged_wait_file_is_ignored(admission, edge, content):
    (edge / "wait" / "model").write_text(content)
    (edge / "draining").write_text(content)
    assert reasons(admission, aged(4.5, 4.5, 4.5, 4.5)) in ([None] * 4, ["overload"] * 4)
    assert DisconnectEventsReader(edge, "model").wait_s() is None or content.startswith("9")


def test_draining_server_rejects_new_requests(admission, edge):
    (edge / "draining").write_text(f"{time.time() - 10:.3f}")
    timings = [replace(timing, has_start=True) for timing in aged(11, 1)]
    assert reasons(admission, timings) == [None, "draining"]
    assert reasons(admission, aged(1)) == [None]  # it may have been accepted before


def test_server_with_emptied_queues_rejects_requests_without_start_time(admission, edge):
    (edge / "draining").write_text(f"{time.time() - 10:.3f}")
    (edge / "queues-emptied").write_text(f"{time.time() - 2:.3f}")
    assert reasons(admission, aged(1)) == ["draining"]
    started_before = [replace(timing, has_start=True) for timing in aged(11)]
    assert reasons(admission, started_before) == [None]


def test_batch_collected_before_queues_emptied_is_computed(admission, edge):
    (edge / "draining").write_text(f"{time.time() - 10:.3f}")
    (edge / "queues-emptied").write_text(f"{time.time() + 1:.3f}")
    assert reasons(admission, aged(0)) == [None]


def test_model_name_that_is_not_a_file_name_has_no_wait(edge):
    assert DisconnectEventsReader(edge, "../left").wait_s() is None
    assert DisconnectEventsReader(None, "model").wait_s() is None
    assert not DisconnectEventsReader(None, "model").has_disconnected("a" * 32)


def test_expected_duration_follows_batches():
    duration = BatchDuration()
    assert duration.expected_s is None
    for _ in range(50):
        duration.add(2.0)
    assert duration.expected_s == pytest.approx(2.0, abs=0.01)
    for seconds in [1.0, 3.0] * 50:
        duration.add(seconds)
    assert 2.3 < duration.expected_s < 3.7


def test_retry_after_is_about_a_batch(edge):
    admission = AdmissionController(DisconnectEventsReader(edge, "model"), 1)
    assert admission.retry_after_s == 1
    admission.record_batch(1, 2.4)
    assert admission.retry_after_s == 3
    admission.record_batch(1, 5000.0)
    assert admission.retry_after_s == 30


def test_overload_with_disconnecting_clients_wastes_little_capacity(tmp_path, monkeypatch):
    """The load is four times the capacity for a minute, with a queue of 100. Each client disconnects after 5 s.

    A second after the last one has left, a request of another client waits for nothing.
    """
    batch, batch_s, client_wait_s, queue_size = 4, 1.0, 5.0, 100
    now = [NOW]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    (tmp_path / "wait").mkdir()
    (tmp_path / "wait" / "model").write_text(f"{client_wait_s}")  # as the proxy reports it
    admission = AdmissionController(DisconnectEventsReader(tmp_path, "model"), batch)
    later = NOW + 60 + client_wait_s + 1
    coming = deque([*(NOW + number * batch_s / (4 * batch) for number in range(60 * 4 * batch)), later])
    queue: deque[float] = deque()
    answered: dict[float, float] = {}
    while later not in answered:
        while coming and coming[0] <= now[0]:
            arrived = coming.popleft()
            if len(queue) < queue_size:
                queue.append(arrived)
        taken = [queue.popleft() for _ in range(min(batch, len(queue)))]
        rejections = admission.check_batch([RequestTiming(arrived) for arrived in taken])
        begun = [arrived for arrived, rejection in zip(taken, rejections, strict=True) if rejection is None]
        now[0] += batch_s if begun else 0.001  # a rejection takes almost no time
        admission.record_batch(len(begun), batch_s)
        answered |= {arrived: now[0] - arrived for arrived in begun}
    assert sum(seconds <= client_wait_s for seconds in answered.values()) - 1 >= 0.8 * 60 * batch / batch_s
    assert answered[later] <= 1.1 * batch_s
