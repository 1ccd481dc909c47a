"""How many predictions of one client are in progress at the same time.

The limit follows the server, by additive increase and multiplicative decrease: it doubles in each round until the
server first refuses (503 or 429), is halved when it refuses, and then grows by one in each round. A prediction that
is refused keeps its slot while it pauses, so that no other takes its place. Those that wait get slots in order of
arrival.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from torchserve_models.client.deadlines import Deadline
from torchserve_models.client.settings import Settings

FIRST_LIMIT = 32


class Slots:
    """Slots for predictions. For any number of threads, or for one event loop."""

    def __init__(self, settings: Settings) -> None:
        bounds = [settings.max_concurrency, settings.max_connections if settings.protocol in _REST else None]
        self._is_limited = settings.max_concurrency is not None
        self._maximum = min((bound for bound in bounds if bound is not None), default=FIRST_LIMIT)
        self._limit = float(min(FIRST_LIMIT, self._maximum))
        self._doubling = True
        self._round = 0
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
    def round(self) -> int:
        """How often the limit was lowered; pass it to `refused` with what was sent since."""
        return self._round

    def answered(self) -> None:
        """The server took a prediction: raise the limit, if it is in use."""
        with self._lock:
            if self._in_use >= self.limit:
                step = 1.0 if self._doubling else 1.0 / self._limit
                self._limit = min(self._limit + step, float(self._maximum))
                self._hand_out()

    def refused(self, sent_in_round: int) -> None:
        """The server refused a prediction: lower the limit, once for all that were sent under the same limit."""
        with self._lock:
            if sent_in_round == self._round:
                self._limit = max(1.0, self._limit / 2)
                self._doubling = False
                self._round += 1

    @contextmanager
    def hold(self, deadline: Deadline | None) -> Iterator[None]:
        """Hold a slot. Raises Timeout if the deadline passes before there is one."""
        granted = threading.Event()
        self._ask(granted.set)
        try:
            if not granted.wait(None if deadline is None else deadline.left()):
                assert deadline is not None
                raise deadline.passed(_WAITED)
            yield
        finally:
            self._leave(granted.set, granted.is_set)

    @asynccontextmanager
    async def hold_async(self, deadline: Deadline | None) -> AsyncIterator[None]:
        """As `hold`."""
        granted = asyncio.Event()
        self._ask(granted.set)
        try:
            try:
                async with asyncio.timeout(None if deadline is None else deadline.left()):
                    await granted.wait()
            except TimeoutError:
                assert deadline is not None
                raise deadline.passed(_WAITED) from None
            yield
        finally:
            self._leave(granted.set, granted.is_set)

    def _ask(self, grant: Callable[[], object]) -> None:
        """Call `grant` when there is a slot, perhaps at once."""
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


_REST = ("rest", "open-inference")
_WAITED = "while it waited for other predictions of this client"
