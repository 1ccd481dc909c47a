"""Record a worker's counters, gauges and histograms through TorchServe's metrics API."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

REQUESTS = "handler_requests_total"
FAILED_ITEMS = "handler_failed_items_total"
SKIPPED_REQUESTS = "handler_skipped_requests_total"
GENERATED_TOKENS = "handler_generated_tokens_total"
DRAFT_TOKENS = "handler_draft_tokens_total"
ACCEPTED_DRAFT_TOKENS = "handler_accepted_draft_tokens_total"
BATCH_SIZE = "handler_batch_size"
DECODE_SECONDS = "handler_decode_seconds"
INFERENCE_SECONDS = "handler_inference_seconds"
ENCODE_SECONDS = "handler_encode_seconds"
CPU_SECONDS = "handler_cpu_seconds_total"
MEMORY_BYTES = "handler_memory_bytes"

_USAGE_INTERVAL_S = 1.0


class Metrics:
    """A buffer of values for TorchServe's metrics. Metrics that its metrics file does not declare are ignored.

    Histograms are in seconds, because TorchServe's buckets are fixed at 0.005 to 10. Values are buffered until
    `flush`, because the front end parses each value on the same CPU cores as the model.
    """

    def __init__(self, cache: Any, model_name: str) -> None:
        self._model_name = model_name
        # The cache maps a metric type to metrics by name. Iterating avoids the import of TorchServe's type.
        by_type = getattr(cache, "cache", {})
        self._metrics: dict[str, Any] = {
            name: metric for group in by_type.values() for name, metric in group.items()
        }
        self._buffer: list[tuple[Any, float, list[str]]] = []
        self._process = psutil.Process()
        self._cpu_seconds = 0.0
        self._next_usage = 0.0

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add to a counter, set a gauge, or observe a value. `labels` are the labels after the model's name."""
        metric = self._metrics.get(name)
        if metric is not None:
            self._buffer.append((metric, value, [self._model_name, *labels]))

    def flush(self) -> None:
        """Pass the buffered values to TorchServe. Adds the process's CPU time and memory at most once a second."""
        if time.monotonic() >= self._next_usage:
            self._next_usage = time.monotonic() + _USAGE_INTERVAL_S
            self._add_usage()
        values, self._buffer = self._buffer, []
        for metric, value, labels in values:
            metric.add_or_update(value, labels)

    def _add_usage(self) -> None:
        """Add the process's CPU time and memory. The first value includes the CPU time of loading."""
        used = time.process_time()
        self.add(CPU_SECONDS, round(used - self._cpu_seconds, 3))
        self._cpu_seconds = used
        self.add(MEMORY_BYTES, self._process.memory_info().rss)

    @contextmanager
    def seconds(self, name: str) -> Iterator[None]:
        """Observe the duration of the block in the histogram `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, round(time.perf_counter() - start, 6))
