"""What a worker counts and times, through TorchServe's metrics (declared in the server's metrics file)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

REQUESTS = "handler_requests_total"
FAILED_ITEMS = "handler_failed_items_total"
GENERATED_TOKENS = "handler_generated_tokens_total"
BATCH_SIZE = "handler_batch_size"
DECODE_SECONDS = "handler_decode_seconds"
INFERENCE_SECONDS = "handler_inference_seconds"
ENCODE_SECONDS = "handler_encode_seconds"


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

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add to a counter, or observe in a histogram. `labels` follow the model's name."""
        metric = self._metrics.get(name)
        if metric is not None:
            self._held.append((metric, value, [self._model_name, *labels]))

    def flush(self) -> None:
        """Hand over what was added since the last time."""
        held, self._held = self._held, []
        for metric, value, labels in held:
            metric.add_or_update(value, labels)

    @contextmanager
    def seconds(self, name: str) -> Iterator[None]:
        """Observe how long the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, round(time.perf_counter() - start, 6))
