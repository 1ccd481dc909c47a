"""An answer that is kept for a while: who asks meanwhile gets it, who asks at the same time waits for the same."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
MAX_ENTRIES = 1000  # keys; clients choose them
ERRORS = 1.0  # seconds at most for an error, which may pass


class TTLCache(Generic[K, T]):
    """`ask` is awaited at most once in `seconds` for a key, counted from its answer; after an error sooner."""

    def __init__(self, ask: Callable[[K], Awaitable[T]], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._tasks: dict[K, asyncio.Task[T]] = {}
        self._ends: dict[K, float] = {}

    async def __call__(self, key: K) -> T:
        task = self._tasks.get(key)
        if task is None or (task.done() and time.monotonic() >= self._ends[key]):
            if len(self._tasks) >= MAX_ENTRIES:
                self._forget()
            task = self._tasks[key] = asyncio.ensure_future(self._run(key))
        # One who gives up waiting does not end it for the others.
        return await asyncio.shield(task)

    async def _run(self, key: K) -> T:
        seconds = min(ERRORS, self._seconds)
        try:
            answer = await self._ask(key)
            seconds = self._seconds
            return answer
        finally:
            self._ends[key] = time.monotonic() + seconds

    def _forget(self) -> None:
        self._tasks = {key: task for key, task in self._tasks.items() if not task.done()}
        self._ends = {}
