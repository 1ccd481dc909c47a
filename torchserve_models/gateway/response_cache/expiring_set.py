"""A set of bounded size whose items expire."""

import time
from collections.abc import Callable, Hashable


class ExpiringSet:
    """Items that are contained for a fixed time after they were added. The oldest ones are removed first."""

    def __init__(self, ttl_s: float, max_items: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._max_items = max_items
        self._clock = clock
        self._expires_at: dict[Hashable, float] = {}

    def __contains__(self, item: Hashable) -> bool:
        expires_at = self._expires_at.get(item)
        if expires_at is None:
            return False
        if self._clock() >= expires_at:
            del self._expires_at[item]
            return False
        return True

    def add(self, item: Hashable) -> None:
        """Add an item, or extend the time of one that is contained."""
        self._expires_at.pop(item, None)
        self._expires_at[item] = self._clock() + self._ttl_s
        if len(self._expires_at) > self._max_items:
            del self._expires_at[next(iter(self._expires_at))]
