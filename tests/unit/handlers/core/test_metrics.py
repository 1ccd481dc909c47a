"""What a worker counts: held until it is handed over, and what its process uses at most once a second."""

import time

import pytest

from handlers.core import metrics as names
from handlers.core.metrics import Metrics
from tests.unit.handlers.context import RecordingCache


@pytest.fixture
def cache():
    return RecordingCache()


@pytest.fixture
def clock(monkeypatch):
    """Monotonic time that stands still until it is set."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_what_is_added_is_handed_over_once(cache):
    metrics = Metrics(cache, "model")
    metrics.add(names.REQUESTS, 3)
    metrics.add(names.FAILED_ITEMS, 1, "InvalidText")
    assert cache[names.REQUESTS] == []
    metrics.flush()
    metrics.flush()
    assert cache[names.REQUESTS] == [(3, ("model",))]
    assert cache[names.FAILED_ITEMS] == [(1, ("model", "InvalidText"))]


def test_a_metric_that_the_server_does_not_know_is_left_out(cache):
    del cache.cache["any"][names.MEMORY_BYTES]
    metrics = Metrics(cache, "model")
    metrics.add("handler_unheard_of", 1)
    metrics.flush()
    assert len(cache[names.CPU_SECONDS]) == 1


def test_what_the_process_uses_is_told_at_most_once_a_second(cache, clock):
    metrics = Metrics(cache, "model")
    for _ in range(3):
        metrics.flush()
    assert len(cache[names.CPU_SECONDS]) == len(cache[names.MEMORY_BYTES]) == 1
    clock[0] += 1.0
    metrics.flush()
    assert len(cache[names.CPU_SECONDS]) == len(cache[names.MEMORY_BYTES]) == 2


def test_cpu_time_is_counted_from_the_start_of_the_process_and_nothing_twice(cache, clock):
    metrics = Metrics(cache, "model")
    metrics.flush()
    work(0.1)
    clock[0] += 1.0
    metrics.flush()
    (first, _), (second, _) = cache[names.CPU_SECONDS]
    assert 0.09 < second < 5
    assert first + second == pytest.approx(time.process_time(), abs=0.5)


def test_memory_is_what_the_process_has_in_bytes(cache):
    metrics = Metrics(cache, "model")
    metrics.flush()
    ((used, labels),) = cache[names.MEMORY_BYTES]
    assert 10e6 < used < 100e9
    assert labels == ("model",)
