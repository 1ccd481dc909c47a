"""The deadline of an operation, and the fields that carry it with a prediction.

The server does not compute a request whose deadline has passed: it answers 504 `DeadlineExceeded`, because
the client has disconnected. REST carries two headers. TorchServe does not pass gRPC metadata to a handler, so there
the same two names are keys of the input map. The Open Inference Protocol over gRPC carries only gRPC's timeout.
"""

import time
from collections.abc import Callable

from torchserve_models.client.endpoints import is_loopback
from torchserve_models.client.errors import Timeout

TIMEOUT = "x-request-timeout"
"""Name of the field with the remaining seconds of the attempt."""

MAX_TIMEOUT_S = 1e6
"""The largest timeout that the server accepts."""

START = "x-request-start"
"""Name of the field with the time at which the attempt was sent, in Unix seconds."""


class Deadline:
    """Deadline of one operation on a monotonic clock."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = seconds
        self._end = clock() + seconds

    def left(self) -> float:
        """Return the remaining seconds, above 0. Raises Timeout if the deadline has passed."""
        left = self._end - self._clock()
        if left <= 0:
            raise self.timeout_error()
        return left

    def allows(self, seconds: float) -> bool:
        """Return whether a pause of that many seconds ends before the deadline."""
        return self._clock() + seconds < self._end

    def timeout_error(self, detail: str = "") -> Timeout:
        """Return the error for a missed deadline. `detail` names the server or the reason for the wait."""
        return Timeout(f"no answer within {self._seconds:g} s {detail}".rstrip())


def deadline_fields(address: str, seconds_left: float) -> dict[str, str]:
    """Return the deadline fields of one attempt.

    The start is sent only to loopback addresses, because the clocks of two machines may differ. On other machines,
    the proxy adds the time of arrival, or the time limit starts when the request reaches a worker.
    """
    fields = {TIMEOUT: f"{min(max(seconds_left, 0.001), MAX_TIMEOUT_S):.3f}"}
    return fields | {START: f"{time.time():.3f}"} if is_loopback(address) else fields
