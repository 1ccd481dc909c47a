"""The recent traffic of a model: the difference between two samples of its metrics."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from torchserve_models.client import Metrics

WINDOW_S = 15.0
MAX_AGE_S = 1.0
"""Seconds for which a sample is reused, because several visitors may need it at the same time."""


@dataclass(frozen=True)
class TrafficStats:
    """A model's traffic.

    `requests` and `failed` are totals since the start of the server. The other values are averages over the last
    WINDOW_S seconds; None means that there was no traffic.
    """

    requests: int
    failed: int
    requests_per_second: float
    batch_size: float | None
    inference_ms: float | None
    tokens_per_second: float


@dataclass(frozen=True)
class MetricsSample:
    """Metrics of the server and the time of the sample (monotonic clock)."""

    time: float
    metrics: Metrics


class TrafficMonitor:
    """Samples of the last WINDOW_S seconds, shared by all visitors. `read` fetches the metrics."""

    def __init__(self, read: Callable[[], Metrics], clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock = read, clock
        self._samples: deque[MetricsSample] = deque()
        self._lock = Lock()

    def snapshot(self) -> Callable[[str], TrafficStats]:
        """Return a function that returns a model's current traffic. Raises TorchServeError."""
        with self._lock:
            if not self._samples or self._clock() - self._samples[-1].time > MAX_AGE_S:
                self._samples.append(MetricsSample(self._clock(), self._read()))
            last = self._samples[-1]
            while self._samples[0].time < last.time - WINDOW_S:
                self._samples.popleft()
            first = self._samples[0]
        return lambda model: compute_traffic(first, last, model)


def compute_traffic(first: MetricsSample, last: MetricsSample, model: str) -> TrafficStats:
    """Return the traffic between two samples. After a restart of the server, rates are 0 instead of negative."""

    def total(sample: MetricsSample, name: str) -> float:
        return sample.metrics.total(name, ModelName=model)

    def increase(name: str) -> float:
        return max(0.0, total(last, name) - total(first, name))

    seconds = last.time - first.time
    batches, runs = increase("handler_batch_size_count"), increase("handler_inference_seconds_count")
    return TrafficStats(
        requests=int(total(last, "handler_requests_total")),
        failed=int(total(last, "handler_failed_items_total")),
        requests_per_second=increase("handler_requests_total") / seconds if seconds else 0.0,
        batch_size=increase("handler_batch_size_sum") / batches if batches else None,
        inference_ms=increase("handler_inference_seconds_sum") / runs * 1000 if runs else None,
        tokens_per_second=increase("handler_generated_tokens_total") / seconds if seconds else 0.0,
    )
