"""Limit the number of concurrent predictions of one client.

The limit follows the server, by additive increase and multiplicative decrease: it doubles in each round until the
server first rejects a prediction (503 or 429), is halved at each overload, and then grows by one in each round. A
rejected prediction keeps its slot while it pauses, so that no other prediction is sent instead. Waiting predictions
get slots in order of arrival.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from torchserve_models.client.deadlines import Deadline
from torchserve_models.client.settings import Settings

INITIAL_CONCURRENCY = 32


class AdaptiveConcurrencyLimit:
    """Limit that adapts to the server, for any number of threads or one event loop."""

    def __init__(self, settings: Settings) -> None:
        max_connections = settings.max_connections if settings.protocol in _REST_PROTOCOLS else None
        bounds = [settings.max_concurrency, max_connections]
        self._is_limited = settings.max_concurrency is not None
        self._maximum = min((bound for bound in bounds if bound is not None), default=INITIAL_CONCURRENCY)
        self._limit = float(min(INITIAL_CONCURRENCY, self._maximum))
        self._doubling = True
        self._decrease_count = 0
        self._in_use = 0
        self._waiting: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()

    @property
    def maximum(self) -> int:
        """The largest limit."""
        return self._maximum

    @property
    def limit(self) -> int:
        """The number of predictions that may be in progress now, at least 1."""
        return int(self._limit)

    @property
    def decrease_count(self) -> int:
        """The number of times the limit was lowered. A prediction remembers the value at which it was sent."""
        return self._decrease_count

    def on_success(self) -> None:
        """Raise the limit if it is in full use. Call this when the server has accepted a prediction."""
        with self._lock:
            if self._in_use >= self.limit:
                step = 1.0 if self._doubling else 1.0 / self._limit
                self._limit = min(self._limit + step, float(self._maximum))
                self._hand_out()

    def on_overload(self, decrease_count: int) -> None:
        """Lower the limit, once for all rejected predictions that were sent at the same `decrease_count`."""
        with self._lock:
            if decrease_count == self._decrease_count:
                self._limit = max(1.0, self._limit / 2)
                self._doubling = False
                self._decrease_count += 1

    @contextmanager
    def hold(self, deadline: Deadline | None) -> Iterator[None]:
        """Hold a slot. Raises Timeout if no slot is free before the deadline."""
        granted = threading.Event()
        self._request_slot(granted.set)
        try:
            if not granted.wait(None if deadline is None else deadline.left()):
                assert deadline is not None
                raise deadline.timeout_error(_WAITED)
            yield
        finally:
            self._leave(granted.set, granted.is_set)

    @asynccontextmanager
    async def hold_async(self, deadline: Deadline | None) -> AsyncIterator[None]:
        """Hold a slot, asynchronously. Raises Timeout if no slot is free before the deadline."""
        granted = asyncio.Event()
        self._request_slot(granted.set)
        try:
            try:
                async with asyncio.timeout(None if deadline is None else deadline.left()):
                    await granted.wait()
            except TimeoutError:
                assert deadline is not None
                raise deadline.timeout_error(_WAITED) from None
            yield
        finally:
            self._leave(granted.set, granted.is_set)

    def _request_slot(self, grant: Callable[[], object]) -> None:
        """Call `grant` as soon as there is a slot, possibly at once."""
        with self._lock:
            if self._is_limited:
                self._waiting.append(grant)
                self._hand_out()
            else:
                self._in_use += 1
                grant()

    def _leave(self, grant: Callable[[], object], has_slot: Callable[[], bool]) -> None:
        with self._lock:
            if has_slot():
                self._in_use -= 1
            else:
                self._waiting.remove(grant)
            self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._in_use < self.limit:
            self._in_use += 1
            self._waiting.popleft()()


_REST_PROTOCOLS = ("rest", "open-inference")
_WAITED = "while it waited for other predictions of this client"
