"""Tests of recording metrics: buffering, process usage and undeclared metrics."""

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
    """Return a monotonic clock that advances only when a test sets it."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_values_are_passed_once(cache):
    metrics = Metrics(cache, "model")
    metrics.add(names.REQUESTS, 3)
    metrics.add(names.FAILED_ITEMS, 1, "InvalidText")
    assert cache[names.REQUESTS] == []
    metrics.flush()
    metrics.flush()
    assert cache[names.REQUESTS] == [(3, ("model",))]
    assert cache[names.FAILED_ITEMS] == [(1, ("model", "InvalidText"))]


def test_undeclared_metric_is_ignored(cache):
    del cache.cache["any"][names.MEMORY_BYTES]
    metrics = Metrics(cache, "model")
    metrics.add("handler_unheard_of", 1)
    metrics.flush()
    assert len(cache[names.CPU_SECONDS]) == 1


def test_process_usage_is_added_at_most_once_a_second(cache, clock):
    metrics = Metrics(cache, "model")
    for _ in range(3):
        metrics.flush()
    assert len(cache[names.CPU_SECONDS]) == len(cache[names.MEMORY_BYTES]) == 1
    clock[0] += 1.0
    metrics.flush()
    assert len(cache[names.CPU_SECONDS]) == len(cache[names.MEMORY_BYTES]) == 2


def test_cpu_time_is_counted_once_from_process_start(cache, clock):
    metrics = Metrics(cache, "model")
    metrics.flush()
    work(0.1)
    clock[0] += 1.0
    metrics.flush()
    (first, _), (second, _) = cache[names.CPU_SECONDS]
    assert 0.09 < second < 5
    assert first + second == pytest.approx(time.process_time(), abs=0.5)


def test_memory_is_resident_set_size_in_bytes(cache):
    metrics = Metrics(cache, "model")
    metrics.flush()
    ((used, labels),) = cache[names.MEMORY_BYTES]
    assert 10e6 < used < 100e9
    assert labels == ("model",)
