"""Which requests of a batch are begun: not those that are too late, nor those whose client has left or will have.

Under overload the queue's head is as old as its clients' wait. Computing it is wasted work: the client leaves before
the answer comes. So a full batch (a sign of a backlog) refuses at once what cannot be finished in time, and the
worker reaches requests that can.
"""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

from handlers.core.deadline import Arrival
from handlers.core.edge import EdgeReader
from handlers.core.errors import DeadlineExceeded, HandlerError, Overloaded

MAX_RETRY_AFTER_S = 30
_WEIGHT = 0.2
_MARGIN = 0.5
_MIN_WAIT = 0.25
"""Share of a batch's time: a request that has waited for less is begun whatever the proxy reports."""


class Refusal(NamedTuple):
    """Why a request is not begun; `reason` is the metric's label, "" for an error of the client."""

    error: HandlerError
    reason: str = ""


class BatchClock:
    """Expected seconds of a full batch: a moving average of those that were computed, and of its deviation."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._deviation = 0.0

    def add(self, seconds: float) -> None:
        if self._mean is None:
            self._mean = seconds
            return
        self._deviation += _WEIGHT * (abs(seconds - self._mean) - self._deviation)
        self._mean += _WEIGHT * (seconds - self._mean)

    @property
    def expected_s(self) -> float | None:
        """None before the first full batch."""
        return None if self._mean is None else self._mean + self._deviation


class Admission:
    """Decides for each request of a batch whether it is begun."""

    def __init__(self, edge: EdgeReader, batch_size: int) -> None:
        self._edge = edge
        self._batch_size = batch_size
        self._clock = BatchClock()

    @property
    def retry_after_s(self) -> int:
        """Seconds for the header Retry-After: about one batch."""
        return max(1, min(MAX_RETRY_AFTER_S, math.ceil(self._clock.expected_s or 1)))

    def check_batch(self, arrivals: Sequence[Arrival]) -> list[Refusal | None]:
        """For each request of a new batch why it is not begun, or None."""
        refusals = [self.check(arrival) or self._draining(arrival) for arrival in arrivals]
        for index in self._too_old(arrivals, refusals):
            refusals[index] = Refusal(
                Overloaded("the server is overloaded: this request could not be answered in time"), "overload"
            )
        return refusals

    def check(self, arrival: Arrival) -> Refusal | None:
        """Why a request is not begun now. Checked again before each part of a batch."""
        if arrival.error is not None:
            return Refusal(arrival.error)
        if arrival.has_expired(time.monotonic()):
            return Refusal(DeadlineExceeded("the request's deadline passed before it was begun"), "deadline")
        if self._edge.has_left(arrival.edge_id):
            error = DeadlineExceeded("the client closed the connection before the request was begun")
            return Refusal(error, "client-left")
        return None

    def finished(self, requests: int, seconds: float) -> None:
        """Take the duration of a batch of `requests` that were computed into account."""
        if requests >= self._batch_size:
            self._clock.add(seconds)

    def _draining(self, arrival: Arrival) -> Refusal | None:
        """A request that does not say when it started may have been accepted before the end was asked for.

        It is begun until the queues have been empty once. For it, `started` is its arrival in this worker.
        """
        since = self._edge.draining_since() if arrival.has_start else self._edge.queues_emptied_at()
        if since is None:
            return None
        started = time.time() - arrival.age(time.monotonic())
        return Refusal(Overloaded("the server is shutting down"), "draining") if started > since else None

    def _too_old(self, arrivals: Sequence[Arrival], refusals: Sequence[Refusal | None]) -> list[int]:
        """Indices of the requests of a full batch that would be finished after their clients have left.

        A batch that straddles the limit is computed whole as far as its requests can be finished: refusing some of it
        would leave the batch half empty. A request that has hardly waited is never refused.
        """
        expected = self._clock.expected_s
        if len(arrivals) < self._batch_size or expected is None:
            return []
        now, wait = time.monotonic(), self._edge.wait_s()
        too_late: list[int] = []
        left: dict[int, float] = {}  # seconds until the client probably leaves
        for index, arrival in enumerate(arrivals):
            if refusals[index] is not None or arrival.age(now) < _MIN_WAIT * expected:
                continue
            if arrival.deadline is not None:  # the client's word goes before what others do
                if arrival.deadline - now < expected:
                    too_late.append(index)
            elif wait is not None:
                left[index] = arrival.started + wait - now
        candidates = sum(refusal is None for refusal in refusals)
        strict = len(left) == candidates and all(
            seconds < expected * (1 + _MARGIN) for seconds in left.values()
        )
        limit = expected * (1 + _MARGIN) if strict else expected
        return too_late + [index for index, seconds in left.items() if seconds < limit]
