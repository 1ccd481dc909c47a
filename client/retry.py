"""When an operation is sent again, after how long, and until when. Without I/O: the clients sleep and send.

Sent again are only calls that cannot do anything twice:
- predictions and questions (they change nothing) after a failed or broken connection, Overloaded and WorkerDied;
- changes (scale, register, set default, unregister) only when the connection failed before anything was sent;
- health questions never: they ask about now.
A timeout is final, as the deadline covers the whole operation, its retries and pauses included.
"""

import random
import time
from collections.abc import Callable

from client.calls import Call
from client.errors import Overloaded, ServeError, Timeout, Unavailable, WorkerDied
from client.settings import Settings

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0


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


class Attempts:
    """One call's retries: `pause_after` says how long to wait before the next attempt, or raises the error."""

    def __init__(self, call: Call[object], settings: Settings, deadline: Deadline) -> None:
        self._resend = call.resend
        self._left = settings.retries
        self._deadline = deadline
        self._pause = FIRST_PAUSE

    def pause_after(self, error: ServeError) -> float:
        """Seconds, doubled each time with up to half of it by chance, so that clients do not come back as one."""
        if self._left == 0 or not self._may_resend(error):
            raise error
        self._left -= 1
        pause = self._pause * random.uniform(0.5, 1.0)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if isinstance(error, Overloaded) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        if pause >= self._deadline.left():
            raise error
        return pause

    def _may_resend(self, error: ServeError) -> bool:
        if isinstance(error, Unavailable) and not error.sent:
            return self._resend in ("always", "unsent")
        return self._resend == "always" and isinstance(error, (Unavailable, Overloaded, WorkerDied))
