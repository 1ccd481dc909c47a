"""When an operation is sent again, after how long, and until when. Without I/O: the clients sleep and send.

Sent again are only calls that cannot do anything twice:
- predictions and questions (they change nothing) after a failed or broken connection, Overloaded and WorkerDied;
- changes (scale, register, set default, unregister) only when the connection failed before anything was sent;
- health questions never: they ask about now.
After Overloaded a call is sent again until the deadline, and not before the server's Retry-After; the client then
has fewer predictions in progress (concurrency.py). After other errors it is sent again three times. `retries` bounds
both.
WorkerDied is sent again once in an operation at most, and not at all if the proxy has done so: a request that kills
its worker would otherwise kill one after the other.
A timeout is final, as the deadline covers all attempts and the pauses between them.
All operations of one client share a budget of retries after a broken connection or a dead worker: clients must not
multiply the load of a server in trouble.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from torchserve_models.client.calls import Call
from torchserve_models.client.concurrency import Slots
from torchserve_models.client.deadlines import Deadline
from torchserve_models.client.errors import (
    InvalidParameter,
    Overloaded,
    TorchServeError,
    TransportError,
    Unavailable,
    WorkerDied,
)
from torchserve_models.client.settings import Settings

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
RETRIES = 3
"""After a failure other than Overloaded, where the settings name no number."""
RETRIES_PER_CALL = 0.1
"""Each call earns this share of a retry."""
MIN_RETRIES_PER_SECOND = 3.0
"""Earned by time alone, so that a client with few calls can retry as well."""
MAX_SAVED_RETRIES = 30.0


class RetryBudget:
    """A token bucket: calls and time add to it, each retry takes one. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens = MAX_SAVED_RETRIES
        self._updated = clock()
        self._lock = threading.Lock()

    def add_call(self) -> None:
        """Earn a share of a retry for a call that is sent for the first time."""
        with self._lock:
            self._add(RETRIES_PER_CALL)

    def take(self) -> bool:
        """Take one retry; False if there is none."""
        with self._lock:
            now = self._clock()
            self._add((now - self._updated) * MIN_RETRIES_PER_SECOND)
            self._updated = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def _add(self, tokens: float) -> None:
        self._tokens = min(self._tokens + tokens, MAX_SAVED_RETRIES)


def check_timeout(timeout: float | None) -> Deadline | None:
    """The deadline of a call that has a timeout of its own. Raises InvalidParameter for one that is not above 0."""
    if timeout is not None and not timeout > 0:
        raise InvalidParameter(f"timeout must be above 0 seconds, not {timeout}")
    return None if timeout is None else Deadline(timeout)


class Execution:
    """One operation in progress: its deadline, the caller's headers, and what its calls' retries share."""

    def __init__(
        self,
        settings: Settings,
        budget: RetryBudget,
        deadline: Deadline | None = None,
        headers: Mapping[str, str] | None = None,
        slots: Slots | None = None,
    ) -> None:
        """`slots`: those of which a prediction holds one."""
        self.deadline = deadline or Deadline(settings.timeout)
        self.headers = dict(headers or {})
        self.retries = settings.retries
        self.budget = budget
        self.slots = slots
        self.may_resend_after_death = True


class Attempts:
    """The attempts of one call. Tell it of each; it says how long to wait before the next, or raises the error."""

    def __init__(self, call: Call[Any], execution: Execution) -> None:
        self._call = call
        self._execution = execution
        self._pause = FIRST_PAUSE
        self._overloads = 0
        self._failures = 0
        self._slots = execution.slots
        self._round = 0
        execution.budget.add_call()

    def begin(self) -> None:
        """An attempt is sent now."""
        if self._slots:
            self._round = self._slots.round

    def answered(self) -> None:
        """The server took the call."""
        if self._slots:
            self._slots.answered()

    def pause_after(self, error: TorchServeError) -> float:
        """Seconds, doubled each time with up to half of it by chance, so that clients do not come back as one."""
        if error.request_id is None:
            error.request_id = self._execution.headers.get("x-request-id")
        if isinstance(error, Overloaded):
            if self._slots:
                self._slots.refused(self._round)
        elif not isinstance(error, TransportError):
            self.answered()
        if not self._may_resend(error):
            raise error
        pause = self._pause * random.uniform(0.5, 1.0)
        if isinstance(error, Overloaded):
            pause += error.retry_after or 0.0
        if not self._execution.deadline.allows(pause):
            raise error
        if isinstance(error, Overloaded):
            self._overloads += 1
        elif self._execution.budget.take():
            self._failures += 1
        else:
            raise error
        if isinstance(error, WorkerDied):
            self._execution.may_resend_after_death = False
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return pause

    def _may_resend(self, error: TorchServeError) -> bool:
        resend, retries = self._call.resend, self._execution.retries
        if retries is not None and self._overloads + self._failures >= retries:
            return False
        if isinstance(error, Overloaded):
            return resend == "always"
        if self._failures >= RETRIES and retries is None:
            return False
        if isinstance(error, Unavailable) and not error.sent:
            return resend in ("always", "unsent")
        if isinstance(error, WorkerDied) and (error.retried or not self._execution.may_resend_after_death):
            return False
        return resend == "always" and isinstance(error, (Unavailable, WorkerDied))
