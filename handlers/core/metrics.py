"""What a worker counts and times, through TorchServe's metrics (declared in the server's metrics file)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

REQUESTS = "handler_requests_total"
FAILED_ITEMS = "handler_failed_items_total"
SKIPPED_REQUESTS = "handler_skipped_requests_total"
GENERATED_TOKENS = "handler_generated_tokens_total"
BATCH_SIZE = "handler_batch_size"
DECODE_SECONDS = "handler_decode_seconds"
INFERENCE_SECONDS = "handler_inference_seconds"
ENCODE_SECONDS = "handler_encode_seconds"
CPU_SECONDS = "handler_cpu_seconds_total"
MEMORY_BYTES = "handler_memory_bytes"

_USAGE_EVERY = 1.0


class Metrics:
    """A thin face on TorchServe's metrics cache; a metric that the server did not declare is left out.

    Histograms hold seconds: TorchServe's buckets are fixed at 0.005 to 10. What is added is held until `flush`: the
    front end reads each value as a line, and would do so on the cores that the network is using.
    """

    def __init__(self, cache: Any, model_name: str) -> None:
        self._model_name = model_name
        # The cache maps a type to metrics by name; going over it spares the import of TorchServe's type.
        by_type = getattr(cache, "cache", {})
        self._metrics: dict[str, Any] = {
            name: metric for group in by_type.values() for name, metric in group.items()
        }
        self._held: list[tuple[Any, float, list[str]]] = []
        self._process = psutil.Process()
        self._cpu_seconds = 0.0
        self._next_usage = 0.0

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add to a counter, set a gauge, or observe in a histogram. `labels` follow the model's name."""
        metric = self._metrics.get(name)
        if metric is not None:
            self._held.append((metric, value, [self._model_name, *labels]))

    def flush(self) -> None:
        """Hand over what was added since the last time, and at most once a second what the process has used."""
        if time.monotonic() >= self._next_usage:
            self._next_usage = time.monotonic() + _USAGE_EVERY
            self._add_usage()
        held, self._held = self._held, []
        for metric, value, labels in held:
            metric.add_or_update(value, labels)

    def _add_usage(self) -> None:
        """The first time, what loading took is in it. Workers of one model add to one counter and set one gauge."""
        used = time.process_time()
        self.add(CPU_SECONDS, round(used - self._cpu_seconds, 3))
        self._cpu_seconds = used
        self.add(MEMORY_BYTES, self._process.memory_info().rss)

    @contextmanager
    def seconds(self, name: str) -> Iterator[None]:
        """Observe how long the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, round(time.perf_counter() - start, 6))
