"""Delays between restarts of one process, with a limit on how often it is restarted."""

import time
from collections import deque
from collections.abc import Callable


class Backoff:
    """Exponential delays that start over after a stable time.

    `next_delay` is called once per failure. The process is given up when it has failed more than `max_restarts` times
    within `window_s`.
    """

    def __init__(
        self,
        first_s: float = 0.2,
        longest_s: float = 30.0,
        factor: float = 2.0,
        stable_s: float = 60.0,
        max_restarts: int = 10,
        window_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stable_s`: seconds without a failure after which the delays start over."""
        self._first_s = first_s
        self._longest_s = longest_s
        self._factor = factor
        self._stable_s = stable_s
        self._max_restarts = max_restarts
        self._window_s = window_s
        self._clock = clock
        self._delay_s = first_s
        self._failures: deque[float] = deque(maxlen=max_restarts + 1)
        self.count = 0
        """Failures so far."""

    def next_delay(self) -> float | None:
        """Record a failure and return the seconds to wait before the restart; None when the limit is reached."""
        now = self._clock()
        if self._failures and now - self._failures[-1] - self._delay_s >= self._stable_s:
            self._delay_s = self._first_s
        elif self._failures:
            self._delay_s = min(self._delay_s * self._factor, self._longest_s)
        self._failures.append(now)
        self.count += 1
        if len(self._failures) > self._max_restarts and now - self._failures[0] <= self._window_s:
            return None
        return self._delay_s
