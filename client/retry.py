"""When an operation is sent again, after how long, and until when. Without I/O: the clients sleep and send.

Sent again are only calls that cannot do anything twice:
- predictions and questions (they change nothing) after a failed or broken connection, Overloaded and WorkerDied;
- changes (scale, register, set default, unregister) only when the connection failed before anything was sent;
- health questions never: they ask about now.
WorkerDied is sent again once in an operation at most, and not at all if the proxy has done so: a request that kills
its worker would otherwise kill one after the other.
A timeout is final, as the deadline covers the whole operation, its retries and pauses included.
All operations of one client share a budget of retries: clients must not multiply the load of a server in trouble.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from client.calls import Call
from client.errors import InvalidParameter, Overloaded, ServeError, Timeout, Unavailable, WorkerDied
from client.settings import Settings

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
RETRIES_PER_CALL = 0.1
"""Each call earns this share of a retry."""
MIN_RETRIES_PER_SECOND = 3.0
"""Earned by time alone, so that a client with few calls can retry as well."""
MAX_SAVED_RETRIES = 30.0


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

    def passed(self) -> Timeout:
        return Timeout(f"no answer within {self._seconds:g} s")


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

    def take(self, max_wait_s: float = 0.0) -> float | None:
        """Take one retry and return the seconds until it is earned; None if that is more than `max_wait_s`."""
        with self._lock:
            now = self._clock()
            self._add((now - self._updated) * MIN_RETRIES_PER_SECOND)
            self._updated = now
            wait_s = max(0.0, (1 - self._tokens) / MIN_RETRIES_PER_SECOND)
            if wait_s > max_wait_s:
                return None
            self._tokens -= 1
            return wait_s

    def _add(self, tokens: float) -> None:
        self._tokens = min(self._tokens + tokens, MAX_SAVED_RETRIES)


class Execution:
    """One operation in progress: its deadline, the caller's headers, and what its calls' retries share."""

    def __init__(
        self,
        settings: Settings,
        budget: RetryBudget,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Raises InvalidParameter for a timeout that is not above 0."""
        seconds = settings.timeout if timeout is None else timeout
        if not seconds > 0:
            raise InvalidParameter(f"timeout must be above 0 seconds, not {timeout}")
        self.deadline = Deadline(seconds)
        self.headers = dict(headers or {})
        self.retries = settings.retries
        self.budget = budget
        self.may_resend_after_death = True


class Attempts:
    """One call's retries: `pause_after` says how long to wait before the next attempt, or raises the error."""

    def __init__(self, call: Call[Any], execution: Execution) -> None:
        self._resend = call.resend
        self._execution = execution
        self._left = execution.retries
        self._pause = FIRST_PAUSE
        execution.budget.add_call()

    def pause_after(self, error: ServeError) -> float:
        """Seconds, doubled each time with up to half of it by chance, so that clients do not come back as one."""
        if error.request_id is None:
            error.request_id = self._execution.headers.get("x-request-id")
        if self._left == 0 or not self._may_resend(error):
            raise error
        pause, max_wait = self._pause * random.uniform(0.5, 1.0), 0.0
        left = self._execution.deadline.left()
        if isinstance(error, Overloaded) and error.retry_after is not None:
            pause += error.retry_after
            max_wait = left  # a server that says when to come back gets its retries, at the budget's rate
        wait = self._execution.budget.take(max_wait) if pause < left else None
        if wait is None or (pause := max(pause, wait)) >= left:
            raise error
        if isinstance(error, WorkerDied):
            self._execution.may_resend_after_death = False
        self._left -= 1
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return pause

    def _may_resend(self, error: ServeError) -> bool:
        if isinstance(error, Unavailable) and not error.sent:
            return self._resend in ("always", "unsent")
        if isinstance(error, WorkerDied) and (error.retried or not self._execution.may_resend_after_death):
            return False
        return self._resend == "always" and isinstance(error, (Unavailable, Overloaded, WorkerDied))
