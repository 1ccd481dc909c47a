"""Retry policy: the calls that are resent, the pauses between attempts, and the limits. The clients do the I/O.

Only calls that cannot change anything twice are resent:
- predictions and descriptions, which change nothing, after a failed or broken connection, Overloaded and WorkerDied;
- changes (scale, register, set default, unregister) only if the connection failed before anything was sent;
- health calls are never resent, because they report the current state.
After Overloaded, a call is resent until the deadline, not before the server's Retry-After; the client then has fewer
predictions in progress (concurrency.py). After other errors it is resent three times. `retries` bounds both.
After WorkerDied, a call is resent at most once in an operation, and not at all if the proxy has already done so: a
request that kills its worker would otherwise kill one worker after the other.
A timeout is final, as the deadline covers all attempts and the pauses between them.
All operations of one client share a budget of retries after broken connections and dead workers, so that clients do
not multiply the load of a failing server.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from torchserve_models.client.call_types import Call
from torchserve_models.client.concurrency import AdaptiveConcurrencyLimit
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

INITIAL_PAUSE_S = 0.1
MAX_PAUSE_S = 2.0
DEFAULT_RETRIES = 3
"""Maximum number of retries after errors other than Overloaded, unless the settings set a number."""
RETRIES_PER_CALL = 0.1
"""Tokens that each new call adds to the budget; a retry takes one token."""
MIN_RETRIES_PER_SECOND = 3.0
"""Tokens added per second, so that a client with few calls can retry as well."""
MAX_SAVED_RETRIES = 30.0


class RetryBudget:
    """Token bucket that limits retries. Threads can share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens = MAX_SAVED_RETRIES
        self._updated = clock()
        self._lock = threading.Lock()

    def add_call(self) -> None:
        """Add RETRIES_PER_CALL tokens to the bucket for a new call."""
        with self._lock:
            self._add(RETRIES_PER_CALL)

    def take(self) -> bool:
        """Take a token for a retry. Return False if the bucket is empty."""
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
    """Return the deadline of a call, or None without a timeout. Raises InvalidParameter unless it is above 0."""
    if timeout is not None and not timeout > 0:
        raise InvalidParameter(f"timeout must be above 0 seconds, not {timeout}")
    return None if timeout is None else Deadline(timeout)


class OperationContext:
    """Deadline, headers, retry budget and concurrency limit of one operation in progress."""

    def __init__(
        self,
        settings: Settings,
        budget: RetryBudget,
        deadline: Deadline | None = None,
        headers: Mapping[str, str] | None = None,
        concurrency_limit: AdaptiveConcurrencyLimit | None = None,
    ) -> None:
        """Start the operation. `concurrency_limit` is the limit of which a prediction holds a slot."""
        self.deadline = deadline or Deadline(settings.timeout)
        self.headers = dict(headers or {})
        self.retries = settings.retries
        self.budget = budget
        self.concurrency_limit = concurrency_limit
        self.may_resend_after_death = True


class RetryState:
    """Retry state of one call. Its user reports the result of each attempt."""

    def __init__(self, call: Call[Any], context: OperationContext) -> None:
        self._call = call
        self._context = context
        self._pause = INITIAL_PAUSE_S
        self._overloads = 0
        self._failures = 0
        self._concurrency_limit = context.concurrency_limit
        self._decrease_count = 0
        context.budget.add_call()

    def begin(self) -> None:
        """Record that an attempt is sent now."""
        if self._concurrency_limit:
            self._decrease_count = self._concurrency_limit.decrease_count

    def on_success(self) -> None:
        """Record that the server accepted the call."""
        if self._concurrency_limit:
            self._concurrency_limit.on_success()

    def pause_after(self, error: TorchServeError) -> float:
        """Return the seconds to pause after an error, or raise it.

        The pause doubles each time and is multiplied by a random factor from 0.5 to 1, so that clients do not
        resend at the same time.
        """
        if error.request_id is None:
            error.request_id = self._context.headers.get("x-request-id")
        if isinstance(error, Overloaded):
            if self._concurrency_limit:
                self._concurrency_limit.on_overload(self._decrease_count)
        elif not isinstance(error, TransportError):
            self.on_success()
        if not self._may_resend(error):
            raise error
        pause = self._pause * random.uniform(0.5, 1.0)
        if isinstance(error, Overloaded):
            pause += error.retry_after or 0.0
        if not self._context.deadline.allows(pause):
            raise error
        if isinstance(error, Overloaded):
            self._overloads += 1
        elif self._context.budget.take():
            self._failures += 1
        else:
            raise error
        if isinstance(error, WorkerDied):
            self._context.may_resend_after_death = False
        self._pause = min(2 * self._pause, MAX_PAUSE_S)
        return pause

    def _may_resend(self, error: TorchServeError) -> bool:
        resend, retries = self._call.resend, self._context.retries
        if retries is not None and self._overloads + self._failures >= retries:
            return False
        if isinstance(error, Overloaded):
            return resend == "always"
        if self._failures >= DEFAULT_RETRIES and retries is None:
            return False
        if isinstance(error, Unavailable) and not error.sent:
            return resend in ("always", "unsent")
        if isinstance(error, WorkerDied) and (error.retried or not self._context.may_resend_after_death):
            return False
        return resend == "always" and isinstance(error, (Unavailable, WorkerDied))
