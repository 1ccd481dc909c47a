"""Decides when a process that has ended is started again, and when to give up."""

import time
from collections import deque
from collections.abc import Callable, Sequence

DELAYS_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
MAX_RESTARTS = 10
WINDOW_S = 600.0


class RestartPolicy:
    """Backoff with a limit: the more restarts within the window, the longer the delay before the next one."""

    def __init__(
        self,
        delays: Sequence[float] = DELAYS_S,
        max_restarts: int = MAX_RESTARTS,
        window: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_restarts = max_restarts
        self.window = window
        self._delays = delays
        self._clock = clock
        self._restarts: deque[float] = deque()

    @property
    def longest_delay(self) -> float:
        return self._delays[-1]

    def next_delay(self) -> float | None:
        """Count one restart and return the seconds to wait before it, or None if the limit is reached."""
        now = self._clock()
        while self._restarts and now - self._restarts[0] > self.window:
            self._restarts.popleft()
        if len(self._restarts) >= self.max_restarts:
            return None
        delay = self._delays[min(len(self._restarts), len(self._delays) - 1)]
        self._restarts.append(now)
        return delay
