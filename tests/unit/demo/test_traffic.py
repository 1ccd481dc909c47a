"""Rates and means between two samples of the metrics."""

import pytest

from torchserve_models.client import Metrics, Sample, Unavailable
from torchserve_models.demo.traffic import TrafficMonitor


def reading(**values: float) -> Metrics:
    samples = [Sample(name, {"ModelName": "m", "Hostname": "h"}, value) for name, value in values.items()]
    return Metrics((*samples, Sample("handler_requests_total", {"ModelName": "other"}, 1000.0)))


def make_metrics(requests: float, batches: float = 0, tokens: float = 0) -> Metrics:
    return reading(
        handler_requests_total=requests,
        handler_failed_items_total=1,
        handler_generated_tokens_total=tokens,
        handler_batch_size_sum=requests,
        handler_batch_size_count=batches,
        handler_inference_seconds_sum=batches * 0.02,
        handler_inference_seconds_count=batches,
    )


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_cover_the_last_seconds():
    clock, readings = (
        Clock(),
        iter([make_metrics(10, 10), make_metrics(30, 15, 500), make_metrics(30, 15, 500)]),
    )
    monitor = TrafficMonitor(lambda: next(readings), clock)
    first = monitor.snapshot()("m")
    assert (first.requests, first.failed, first.requests_per_second, first.batch_size) == (10, 1, 0.0, None)
    clock.now += 0.5
    assert monitor.snapshot()("m") == first  # the previous sample is reused
    clock.now += 4.5
    second = monitor.snapshot()("m")
    assert (second.requests, second.requests_per_second, second.batch_size) == (30, 4.0, 4.0)
    assert second.inference_ms == pytest.approx(20)
    assert second.tokens_per_second == 100
    clock.now += 60  # no recent traffic
    assert monitor.snapshot()("m").requests_per_second == 0


def test_restarted_server_has_no_negative_rates():
    clock, readings = Clock(), iter([make_metrics(100, 50, 900), make_metrics(3, 2, 10)])
    monitor = TrafficMonitor(lambda: next(readings), clock)
    monitor.snapshot()
    clock.now += 5
    again = monitor.snapshot()("m")
    assert (again.requests, again.requests_per_second, again.batch_size, again.tokens_per_second) == (
        3,
        0,
        None,
        0,
    )


def test_error_is_raised_once_and_not_cached():
    clock, results = Clock(), iter([Unavailable("no connection"), make_metrics(1)])

    def read() -> Metrics:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    monitor = TrafficMonitor(read, clock)
    with pytest.raises(Unavailable):
        monitor.snapshot()
    assert monitor.snapshot()("m").requests == 1
