"""The store of answers: bounds, age, and metrics."""

import tracemalloc

import pytest
from prometheus_client import CollectorRegistry

from torchserve_models.gateway.response_cache.answer_store import ENTRY_OVERHEAD_BYTES, Answer, AnswerStore
from torchserve_models.gateway.response_cache.cache_metrics import CacheMetrics

HEADERS = ((b"content-type", b"application/json"),)


def answer(size: int = 100) -> Answer:
    return Answer(200, HEADERS, bytes(size))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry) -> CacheMetrics:
    return CacheMetrics(registry)


def store(metrics, clock, entries=3, ttl_s=60.0) -> AnswerStore:
    return AnswerStore(entries * answer().size_bytes, ttl_s, metrics, clock)


def sample(registry, name, **labels) -> float | None:
    return registry.get_sample_value(f"gateway_cache_{name}", labels)


def test_answer_is_returned_with_its_age_until_it_expires(registry, metrics, clock):
    answers = store(metrics, clock)
    answers.put(b"a", answer())
    clock.now += 59
    assert answers.get(b"a") == (answer(), 59)
    clock.now += 1
    assert answers.get(b"a") is None
    assert sample(registry, "evictions_total", reason="expired") == 1
    assert (sample(registry, "entries"), sample(registry, "bytes")) == (0, 0)


def test_client_limits_the_age(metrics, clock):
    answers = store(metrics, clock)
    answers.put(b"a", answer())
    clock.now += 10
    assert answers.get(b"a", 9) is None
    assert answers.get(b"a", 10) == (answer(), 10)


def test_least_recently_used_answer_is_removed_first(registry, metrics, clock):
    answers = store(metrics, clock)
    for key in (b"a", b"b", b"c"):
        answers.put(key, answer())
    answers.get(b"a")
    answers.put(b"d", answer())
    assert [key for key in (b"a", b"b", b"c", b"d") if answers.get(key)] == [b"a", b"c", b"d"]
    assert sample(registry, "evictions_total", reason="size") == 1
    assert sample(registry, "bytes") == 3 * answer().size_bytes


def test_replaced_answer_is_counted_once(registry, metrics, clock):
    answers = store(metrics, clock)
    for size in (10, 20):
        answers.put(b"a", answer(size))
    assert answers.get(b"a") == (answer(20), 0)
    assert (sample(registry, "entries"), sample(registry, "bytes")) == (1, answer(20).size_bytes)


def test_answer_that_does_not_fit_evicts_nothing(metrics, clock):
    answers = store(metrics, clock)
    answers.put(b"a", answer())
    answers.put(b"b", answer(100_000))
    assert answers.get(b"a")
    assert answers.get(b"b") is None


def test_entries_take_at_most_the_memory_that_is_counted(registry, metrics, clock):
    count = 2000
    headers = tuple((f"name-{index}".encode(), b"v" * 40) for index in range(8))
    tracemalloc.start()
    try:
        answers = AnswerStore(10**9, 60, metrics, clock)
        before = tracemalloc.get_traced_memory()[0]
        for index in range(count):
            copied = tuple((bytes(bytearray(name)), bytes(bytearray(value))) for name, value in headers)
            answers.put(index.to_bytes(32), Answer(200, copied, bytes(300)))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert count * 300 < used < sample(registry, "bytes")
    assert sample(registry, "bytes") > count * ENTRY_OVERHEAD_BYTES
