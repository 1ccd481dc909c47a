"""Reject requests whose answers would be late: after the deadline, or after the client disconnects.

Under overload, the oldest requests in the queue have waited almost as long as their clients do. Computing them wastes
time, because the clients disconnect before the answers arrive. A full batch indicates a backlog. A worker then
rejects the requests that it cannot finish in time, and computes requests that it can finish.
"""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

from handlers.core.deadline import RequestTiming
from handlers.core.disconnect_events import DisconnectEventsReader
from handlers.core.errors import DeadlineExceeded, HandlerError, Overloaded

MAX_RETRY_AFTER_S = 30
_AVERAGE_WEIGHT = 0.2
"""Weight of the latest batch in the moving averages."""
_STRICT_MARGIN = 0.5
"""Share of a batch's time that is added to the limit if all requests of a batch are close to it."""
_MIN_WAIT_SHARE = 0.25
"""Share of a batch's time. A request that has waited for less is never rejected because of the clients' wait."""


class Rejection(NamedTuple):
    """The error of a rejected request. `reason` is the label of the metric; "" if the client made the error."""

    error: HandlerError
    reason: str = ""


class BatchDuration:
    """The expected duration of a full batch: the moving average of past durations, plus that of their deviations."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._deviation = 0.0

    def add(self, seconds: float) -> None:
        if self._mean is None:
            self._mean = seconds
            return
        self._deviation += _AVERAGE_WEIGHT * (abs(seconds - self._mean) - self._deviation)
        self._mean += _AVERAGE_WEIGHT * (seconds - self._mean)

    @property
    def expected_s(self) -> float | None:
        """The expected duration in seconds; None before the first full batch."""
        return None if self._mean is None else self._mean + self._deviation


class AdmissionController:
    """An admission controller, which decides which requests of a batch are computed."""

    def __init__(self, edge: DisconnectEventsReader, batch_size: int) -> None:
        self._edge = edge
        self._batch_size = batch_size
        self._duration = BatchDuration()

    @property
    def retry_after_s(self) -> int:
        """The value of the header Retry-After in seconds: about the duration of one batch."""
        return max(1, min(MAX_RETRY_AFTER_S, math.ceil(self._duration.expected_s or 1)))

    def check_batch(self, timings: Sequence[RequestTiming]) -> list[Rejection | None]:
        """Return the rejection of each request of a new batch; None for a request that will be computed."""
        rejections = [self.check(timing) or self._check_shutdown(timing) for timing in timings]
        for index in self._find_too_old(timings, rejections):
            rejections[index] = Rejection(
                Overloaded("the server is overloaded: this request could not be answered in time"), "overload"
            )
        return rejections

    def check(self, timing: RequestTiming) -> Rejection | None:
        """Return the rejection of a request, or None. The pipeline repeats this check before each sub-batch."""
        if timing.error is not None:
            return Rejection(timing.error)
        if timing.has_expired(time.monotonic()):
            error = DeadlineExceeded("the request's deadline passed before the request was processed")
            return Rejection(error, "deadline")
        if self._edge.has_disconnected(timing.edge_id):
            error = DeadlineExceeded("the client closed the connection before the request was processed")
            return Rejection(error, "client-left")
        return None

    def record_batch(self, requests: int, seconds: float) -> None:
        """Add the duration of a batch in which `requests` requests were computed."""
        if requests >= self._batch_size:
            self._duration.add(seconds)

    def _check_shutdown(self, timing: RequestTiming) -> Rejection | None:
        """Return a rejection if the request was sent after the shutdown began.

        A request without a start time may have been accepted before the shutdown. Such requests are computed until
        the queues have been empty once; their `started` is the time of their arrival in this worker.
        """
        since = self._edge.draining_since() if timing.has_start else self._edge.queues_emptied_at()
        if since is None:
            return None
        started = time.time() - timing.age(time.monotonic())
        return Rejection(Overloaded("the server is shutting down"), "draining") if started > since else None

    def _find_too_old(
        self, timings: Sequence[RequestTiming], rejections: Sequence[Rejection | None]
    ) -> list[int]:
        """Return the indices of the requests of a full batch that would finish after their clients disconnect.

        The stricter limit, with a margin, applies only if it rejects all requests, because rejecting a few of them
        would leave the batch half empty. A request that has hardly waited is never rejected.
        """
        expected = self._duration.expected_s
        if len(timings) < self._batch_size or expected is None:
            return []
        now, wait = time.monotonic(), self._edge.wait_s()
        too_late: list[int] = []
        remaining: dict[int, float] = {}  # seconds until the client probably disconnects
        for index, timing in enumerate(timings):
            if rejections[index] is not None or timing.age(now) < _MIN_WAIT_SHARE * expected:
                continue
            if timing.deadline is not None:  # takes precedence over the wait of other clients
                if timing.deadline - now < expected:
                    too_late.append(index)
            elif wait is not None:
                remaining[index] = timing.started + wait - now
        candidates = sum(rejection is None for rejection in rejections)
        strict = len(remaining) == candidates and all(
            seconds < expected * (1 + _STRICT_MARGIN) for seconds in remaining.values()
        )
        limit = expected * (1 + _STRICT_MARGIN) if strict else expected
        return too_late + [index for index, seconds in remaining.items() if seconds < limit]
