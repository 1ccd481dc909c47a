"""Record a worker's counters, gauges and histograms through TorchServe's metrics API."""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import psutil

WORKER_STARTS = "handler_worker_starts_total"
REQUESTS = "handler_requests_total"
FAILED_ITEMS = "handler_failed_items_total"
SKIPPED_REQUESTS = "handler_skipped_requests_total"
GENERATED_TOKENS = "handler_generated_tokens_total"
DRAFT_TOKENS = "handler_draft_tokens_total"
ACCEPTED_DRAFT_TOKENS = "handler_accepted_draft_tokens_total"
CPU_SECONDS = "handler_cpu_seconds_total"
MEMORY_BYTES = "handler_memory_bytes"
BATCH_SIZE = "handler_batch_size"
REQUEST_SECONDS = "handler_request_seconds"
DECODE_SECONDS = "handler_decode_seconds"
INFERENCE_SECONDS = "handler_inference_seconds"
ENCODE_SECONDS = "handler_encode_seconds"

FLUSH_INTERVAL_S = 0.5

_BATCH_SIZE_BOUNDS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)
_SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
HISTOGRAM_BOUNDS: dict[str, Sequence[float]] = {
    BATCH_SIZE: _BATCH_SIZE_BOUNDS,
    REQUEST_SECONDS: _SECONDS_BOUNDS,
    DECODE_SECONDS: _SECONDS_BOUNDS,
    INFERENCE_SECONDS: _SECONDS_BOUNDS,
    ENCODE_SECONDS: _SECONDS_BOUNDS,
}
"""Upper bounds of the buckets of each histogram, without infinity."""


class Metrics:
    """The values of one worker for TorchServe's metrics. Metrics that its metrics file does not declare are ignored.

    TorchServe's front end parses a line of text for each value, on the same CPU cores as the model. Values are
    therefore added up, and a thread passes the sums at most twice a second. Values of the last half second are lost
    if the worker is killed.

    TorchServe's histograms have fixed buckets (0.005 to 10) and take one line per value. The histograms here are
    counters in Prometheus's histogram format instead: `NAME_bucket` with the label `le`, `NAME_sum` and `NAME_count`.
    """

    def __init__(self, cache: Any, model_name: str, model_version: str) -> None:
        self._labels = (model_name, model_version)
        # The cache maps a metric type to metrics by name. Iterating avoids the import of TorchServe's type.
        by_type = getattr(cache, "cache", {})
        self._metrics: dict[str, Any] = {
            name: metric for group in by_type.values() for name, metric in group.items()
        }
        # Series begin at 0, so that rates see the first event.
        self._counts: dict[tuple[str, tuple[str, ...]], float] = {(REQUESTS, ()): 0}
        self._histograms = {name: _Histogram(bounds) for name, bounds in HISTOGRAM_BOUNDS.items()}
        self._process = psutil.Process()
        self._cpu_seconds = 0.0
        self._lock = threading.Lock()
        self._flush_lock = threading.Lock()
        self._has_values = threading.Event()

    def start(self) -> None:
        """Start the thread that passes the values to TorchServe."""
        threading.Thread(target=self._flush_regularly, name="metrics", daemon=True).start()

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add to a counter. `labels` are the labels after the model's name and version."""
        with self._lock:
            key = (name, labels)
            self._counts[key] = self._counts.get(key, 0) + value
        self._has_values.set()

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram."""
        with self._lock:
            self._histograms[name].observe(value)
        self._has_values.set()

    @contextmanager
    def seconds(self, name: str) -> Iterator[None]:
        """Add the duration of the block to the histogram `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.observe(name, time.perf_counter() - start)

    def flush(self) -> None:
        """Pass the sums since the last flush to TorchServe, with the process's CPU time and memory."""
        with self._flush_lock:
            self._has_values.clear()
            with self._lock:
                counts, self._counts = self._counts, {}
                for name, histogram in self._histograms.items():
                    counts |= {(name + suffix, labels): value for suffix, labels, value in histogram.take()}
            used = time.process_time()  # the first value includes the CPU time of loading
            counts[CPU_SECONDS, ()] = used - self._cpu_seconds
            self._cpu_seconds = used
            counts[MEMORY_BYTES, ()] = self._process.memory_info().rss
            for (name, labels), value in counts.items():
                if (metric := self._metrics.get(name)) is not None:
                    metric.add_or_update(round(value, 6), [*self._labels, *labels])

    def _flush_regularly(self) -> None:
        while True:
            self._has_values.wait()
            time.sleep(FLUSH_INTERVAL_S)
            self.flush()


class _Histogram:
    """The observations since the last flush, counted by bucket."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._is_new = True
        self._bounds = bounds
        self._names = [*(f"{bound:g}" for bound in bounds), "+Inf"]
        self._reset()

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def take(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """Yield suffix, labels and increase of each series that increased, at first of all series."""
        totals = list(accumulate(self._counts))
        for name, total in zip(self._names, totals, strict=True):
            if total or self._is_new:
                yield "_bucket", (name,), total
        if totals[-1] or self._is_new:
            yield "_sum", (), self._sum
            yield "_count", (), totals[-1]
        self._reset()
        self._is_new = False

    def _reset(self) -> None:
        self._counts = [0] * len(self._names)
        self._sum = 0.0
