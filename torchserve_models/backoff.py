"""Delays between restarts of one process, with a limit on how often it is restarted."""

import math
import time
from collections.abc import Callable


class Backoff:
    """Exponential backoff that resets after a stable period.

    Call `next_delay` once per failure. It returns None after more than `max_restarts` failures without a stable
    period in between.
    """

    def __init__(
        self,
        initial_delay_s: float = 0.2,
        max_delay_s: float = 30.0,
        factor: float = 2.0,
        stable_s: float = 60.0,
        max_restarts: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the backoff. A failure `stable_s` seconds or more after a restart resets the delays."""
        self._initial_delay_s = initial_delay_s
        self._max_delay_s = max_delay_s
        self._factor = factor
        self._stable_s = stable_s
        self._max_restarts = max_restarts
        self._clock = clock
        self._delay_s = initial_delay_s
        self._consecutive = 0
        self._restart_at = -math.inf
        self.count = 0
        """Number of failures so far."""

    def restarted(self) -> None:
        """Record the end of a restart; the stable period starts now."""
        self._restart_at = self._clock()

    def next_delay(self) -> float | None:
        """Record a failure and return the seconds to wait before the restart; None when the limit is reached."""
        now = self._clock()
        if now - self._restart_at >= self._stable_s:
            self._delay_s, self._consecutive = self._initial_delay_s, 0
        else:
            self._delay_s = min(self._delay_s * self._factor, self._max_delay_s)
        self._consecutive += 1
        self.count += 1
        if self._consecutive > self._max_restarts:
            return None
        self._restart_at = now + self._delay_s
        return self._delay_s
