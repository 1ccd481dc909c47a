"""A cache with expiring entries, in which concurrent callers share one pending call."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
MAX_ENTRIES = 1000
"""Bounds the memory, because clients choose the keys."""
MAX_ERROR_TTL_S = 1.0
"""Errors expire sooner, because their cause may be temporary."""


class TTLCache(Generic[K, T]):
    """A cache that awaits `fetch` at most once per key and `ttl_s` seconds, which begin with the result.

    An error is cached for at most MAX_ERROR_TTL_S.
    """

    def __init__(self, fetch: Callable[[K], Awaitable[T]], ttl_s: float) -> None:
        self._fetch = fetch
        self._ttl_s = ttl_s
        self._tasks: dict[K, asyncio.Task[T]] = {}
        self._expires_at: dict[K, float] = {}

    async def __call__(self, key: K) -> T:
        task = self._tasks.get(key)
        if task is None or (task.done() and time.monotonic() >= self._expires_at[key]):
            if len(self._tasks) >= MAX_ENTRIES:
                self._remove_finished()
            task = self._tasks[key] = asyncio.ensure_future(self._run(key))
        # A caller that is canceled must not cancel the call for the others.
        return await asyncio.shield(task)

    async def _run(self, key: K) -> T:
        ttl_s = min(MAX_ERROR_TTL_S, self._ttl_s)
        try:
            result = await self._fetch(key)
            ttl_s = self._ttl_s
            return result
        finally:
            self._expires_at[key] = time.monotonic() + ttl_s

    def _remove_finished(self) -> None:
        self._tasks = {key: task for key, task in self._tasks.items() if not task.done()}
        self._expires_at = {}
