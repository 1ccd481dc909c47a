"""How long the caller still waits: the end of one operation, and what is sent along with a prediction.

The server does not begin a request whose deadline has passed: it answers 504 `DeadlineExceeded` instead of computing
for a client that has left. REST carries two headers; TorchServe's gRPC has no headers that reach a handler, so there
the same two names are keys of the input map. The Open Inference Protocol over gRPC carries gRPC's own timeout only.
"""

import time
from collections.abc import Callable

from torchserve_models.client.endpoints import is_loopback
from torchserve_models.client.errors import Timeout

TIMEOUT = "x-request-timeout"
"""Seconds that are left for this attempt."""

MAX_TIMEOUT_S = 1e6
"""The largest number that the server takes."""

START = "x-request-start"
"""When the attempt was sent, in Unix seconds."""


class Deadline:
    """The end of one operation, on a clock that only goes forward."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = seconds
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds, above 0. Raises Timeout."""
        left = self._end - self._clock()
        if left <= 0:
            raise self.passed()
        return left

    def allows(self, seconds: float) -> bool:
        """Whether time is left after a pause of that length."""
        return self._clock() + seconds < self._end

    def passed(self, detail: str = "") -> Timeout:
        """The error. `detail` says whose answer, or what was waited for."""
        return Timeout(f"no answer within {self._seconds:g} s {detail}".rstrip())


def deadline_fields(address: str, seconds_left: float) -> dict[str, str]:
    """Return the fields of one attempt.

    The start is sent to loopback addresses only: another machine's clock may differ by more than the timeout. There
    the proxy stamps the arrival, or the server counts from when the request reaches a worker.
    """
    fields = {TIMEOUT: f"{min(max(seconds_left, 0.001), MAX_TIMEOUT_S):.3f}"}
    return fields | {START: f"{time.time():.3f}"} if is_loopback(address) else fields
