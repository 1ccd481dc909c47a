"""Rates and means between two readings of the metrics."""

import pytest

from torchserve_models.client import Metrics, Sample, Unavailable
from torchserve_models.demo.traffic import Watch


def reading(**values: float) -> Metrics:
    samples = [Sample(name, {"ModelName": "m", "Hostname": "h"}, value) for name, value in values.items()]
    return Metrics((*samples, Sample("handler_requests_total", {"ModelName": "other"}, 1000.0)))


def counts(requests: float, batches: float = 0, tokens: float = 0) -> Metrics:
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


def test_rates_are_those_of_the_last_seconds():
    clock, readings = Clock(), iter([counts(10, 10), counts(30, 15, 500), counts(30, 15, 500)])
    watch = Watch(lambda: next(readings), clock)
    first = watch.look()("m")
    assert (first.requests, first.failed, first.per_second, first.batch) == (10, 1, 0.0, None)
    clock.now += 0.5
    assert watch.look()("m") == first  # a reading of before is good enough
    clock.now += 4.5
    second = watch.look()("m")
    assert (second.requests, second.per_second, second.batch) == (30, 4.0, 4.0)
    assert second.milliseconds == pytest.approx(20)
    assert second.tokens_per_second == 100
    clock.now += 60  # nothing of it is recent any more
    assert watch.look()("m").per_second == 0


def test_a_server_that_was_started_anew_has_no_negative_rates():
    clock, readings = Clock(), iter([counts(100, 50, 900), counts(3, 2, 10)])
    watch = Watch(lambda: next(readings), clock)
    watch.look()
    clock.now += 5
    again = watch.look()("m")
    assert (again.requests, again.per_second, again.batch, again.tokens_per_second) == (3, 0, None, 0)


def test_an_error_is_told_and_forgotten():
    clock, answers = Clock(), iter([Unavailable("no connection"), counts(1)])

    def read() -> Metrics:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = Watch(read, clock)
    with pytest.raises(Unavailable):
        watch.look()
    assert watch.look()("m").requests == 1
