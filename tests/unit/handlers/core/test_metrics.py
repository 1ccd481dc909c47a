"""Tests of recording metrics: sums, histograms, process usage, undeclared metrics and the flush thread."""

import threading
import time

import pytest

from handlers.core import metrics as names
from handlers.core.metrics import Metrics
from tests.unit.handlers.context import RecordingCache


@pytest.fixture
def cache():
    return RecordingCache()


@pytest.fixture
def metrics(cache):
    return Metrics(cache, "model", "1.0")


def work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_sums_are_passed_once(cache, metrics):
    metrics.add(names.REQUESTS, 3)
    metrics.add(names.REQUESTS, 2)
    metrics.add(names.FAILED_ITEMS, 1, "InvalidText")
    assert cache[names.REQUESTS] == {}
    metrics.flush()
    metrics.flush()
    assert cache[names.REQUESTS] == {(): 5}
    assert cache[names.FAILED_ITEMS] == {("InvalidText",): 1}
    assert cache.models(names.REQUESTS) == {("model", "1.0")}


def test_histogram_buckets_are_cumulative(cache, metrics):
    for size in (1, 2, 3, 20, 1000):
        metrics.observe(names.BATCH_SIZE, size)
    metrics.flush()
    buckets = {bound: count for (bound,), count in cache["handler_batch_size_bucket"].items()}
    assert buckets == {
        **{"1": 1, "2": 2, "4": 3, "8": 3, "12": 3, "16": 3},
        **{"24": 4, "32": 4, "48": 4, "64": 4, "96": 4, "128": 4, "256": 4, "+Inf": 5},
    }
    assert cache["handler_batch_size_sum"] == {(): 1026}
    assert cache["handler_batch_size_count"] == {(): 5}
    metrics.observe(names.BATCH_SIZE, 300)
    metrics.flush()
    assert cache["handler_batch_size_bucket"][("256",)] == 4
    assert cache["handler_batch_size_bucket"][("+Inf",)] == cache["handler_batch_size_count"][()] == 6


def test_series_exist_before_the_first_event(cache, metrics):
    """Prometheus computes no increase from the first value of a series."""
    metrics.flush()
    series = cache.cache["counter"]["handler_decode_seconds_bucket"].values
    assert len(series) == len(names.HISTOGRAM_BOUNDS[names.DECODE_SECONDS]) + 1
    assert series["model", "1.0", "+Inf"] == 0
    assert cache.models(names.REQUESTS) == {("model", "1.0")}


def test_durations_are_observed_in_seconds(cache, metrics):
    with metrics.seconds(names.DECODE_SECONDS):
        time.sleep(0.03)
    metrics.flush()
    assert 0.03 <= cache["handler_decode_seconds_sum"][()] < 10
    assert ("0.025",) not in cache["handler_decode_seconds_bucket"]
    assert cache["handler_decode_seconds_bucket"][("120",)] == 1


def test_undeclared_metric_is_ignored(cache):
    del cache.cache["gauge"][names.MEMORY_BYTES]
    metrics = Metrics(cache, "model", "1.0")
    metrics.add("handler_unheard_of", 1)
    metrics.flush()
    assert cache[names.CPU_SECONDS]
    assert not cache[names.MEMORY_BYTES]


def test_cpu_time_is_counted_once_from_process_start(cache, metrics):
    metrics.flush()
    first = cache[names.CPU_SECONDS][()]
    work(0.1)
    metrics.flush()
    both = cache[names.CPU_SECONDS][()]
    assert 0.09 < both - first < 5
    assert both == pytest.approx(time.process_time(), abs=0.5)


def test_memory_is_resident_set_size_in_bytes(cache, metrics):
    metrics.flush()
    assert 10e6 < cache[names.MEMORY_BYTES][()] < 100e9


def test_thread_passes_values_without_delaying_the_caller(cache, metrics, monkeypatch):
    monkeypatch.setattr(names, "FLUSH_INTERVAL_S", 0.01)
    is_called = threading.Event()
    callers = set()

    def add_or_update(value, labels):
        callers.add(threading.current_thread())
        is_called.set()

    cache.cache["counter"][names.REQUESTS].add_or_update = add_or_update
    metrics.start()
    metrics.add(names.REQUESTS, 1)
    assert is_called.wait(30)
    assert threading.current_thread() not in callers
