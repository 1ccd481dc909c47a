"""What a model does just now: its metrics between two readings."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from torchserve_models.client import Metrics

WINDOW = 15.0  # seconds
AGE = 1.0  # seconds for which a reading is good enough: several people may look at once


@dataclass(frozen=True)
class Traffic:
    """`requests` and `failed` since the server started; the rest of the last seconds, None where nothing happened."""

    requests: int
    failed: int
    per_second: float
    batch: float | None
    milliseconds: float | None
    tokens_per_second: float


@dataclass(frozen=True)
class Reading:
    time: float
    metrics: Metrics


class Watch:
    """The readings of the last seconds, shared by all who look. `read` asks the server for one."""

    def __init__(self, read: Callable[[], Metrics], clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock = read, clock
        self._readings: deque[Reading] = deque()
        self._lock = Lock()

    def look(self) -> Callable[[str], Traffic]:
        """What to ask for a model's traffic. Raises TorchServeError."""
        with self._lock:
            if not self._readings or self._clock() - self._readings[-1].time > AGE:
                self._readings.append(Reading(self._clock(), self._read()))
            last = self._readings[-1]
            while self._readings[0].time < last.time - WINDOW:
                self._readings.popleft()
            first = self._readings[0]
        return lambda model: between(first, last, model)


def between(first: Reading, last: Reading, model: str) -> Traffic:
    """A server that was started anew between the two has counted less since: its counts alone are told then."""

    def total(reading: Reading, name: str) -> float:
        return reading.metrics.total(name, ModelName=model)

    def grown(name: str) -> float:
        return max(0.0, total(last, name) - total(first, name))

    seconds = last.time - first.time
    batches, runs = grown("handler_batch_size_count"), grown("handler_inference_seconds_count")
    return Traffic(
        requests=int(total(last, "handler_requests_total")),
        failed=int(total(last, "handler_failed_items_total")),
        per_second=grown("handler_requests_total") / seconds if seconds else 0.0,
        batch=grown("handler_batch_size_sum") / batches if batches else None,
        milliseconds=grown("handler_inference_seconds_sum") / runs * 1000 if runs else None,
        tokens_per_second=grown("handler_generated_tokens_total") / seconds if seconds else 0.0,
    )
