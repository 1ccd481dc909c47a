"""One call whose result several waiters share. It is canceled when the last of them leaves."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SharedCall(Generic[T]):
    """A running call. It begins at once."""

    def __init__(self, call: Coroutine[Any, Any, T]) -> None:
        self._task = asyncio.ensure_future(call)
        self._had_waiters = False
        self._waiting = 0
        self._is_canceled = False

    @property
    def is_joinable(self) -> bool:
        """Whether a new waiter gets the result: the call has not been canceled. It may be done."""
        return not self._is_canceled

    @contextmanager
    def join(self) -> Iterator[bool]:
        """Wait for the result within this context, which tells whether this is the first waiter.

        The call is canceled if the last waiter leaves before its end.
        """
        is_first, self._had_waiters = not self._had_waiters, True
        self._waiting += 1
        try:
            yield is_first
        finally:
            self._waiting -= 1
            if not self._waiting and not self._task.done():
                self._is_canceled = True
                self._task.cancel()

    async def result(self) -> T:
        """Return the result. Call this within `join`. Canceling one waiter leaves the call to the others."""
        return await asyncio.shield(self._task)

    async def end(self) -> T | None:
        """Wait for the end of the call without joining it. Return the result; None if there is none."""
        await asyncio.wait([self._task])
        return None if self._task.cancelled() or self._task.exception() else self._task.result()
