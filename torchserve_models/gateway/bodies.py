"""Read request bodies within bounds: bytes per body, bytes of all bodies together, and time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from handlers.core.errors import TooLarge
from torchserve_models.client import Overloaded
from torchserve_models.gateway.metrics import GatewayMetrics

READ_TIMEOUT_S = 30.0
"""For a whole body. nginx reads bodies before it passes them on, so that slow clients do not come this far."""
BUDGET_BYTES = 64 * 2**20
"""Memory for the bodies of all requests, from their first byte to their answer."""
SMALL_BODY_BYTES = 64 * 2**10
SMALL_SHARE = 0.25
"""Share of the budget that only small bodies may use, so that large ones do not shut them out."""
MAX_REQUESTS = 512
"""Requests with a body at once: connections and tasks need memory, too."""


class BodyReader:
    """Reads bodies against one budget. What does not fit is refused at once instead of waiting for memory."""

    def __init__(
        self,
        metrics: GatewayMetrics,
        budget_bytes: int = BUDGET_BYTES,
        read_timeout_s: float = READ_TIMEOUT_S,
        max_requests: int = MAX_REQUESTS,
    ) -> None:
        self._metrics = metrics
        self._budget_bytes = budget_bytes
        self._read_timeout_s = read_timeout_s
        self._max_requests = max_requests
        self._used_bytes = 0
        self._requests = 0

    @property
    def used_bytes(self) -> int:
        return self._used_bytes

    @asynccontextmanager
    async def open(self, request: Request, max_bytes: int) -> AsyncIterator["IncomingBody"]:
        """A body that is read piece by piece. What it holds of the budget is free again after the context.

        Raises:
            TooLarge: Its declared length exceeds `max_bytes`.
            Overloaded: There are too many requests now (429).
        """
        if self._requests >= self._max_requests:
            raise self.busy()
        self._requests += 1
        body = IncomingBody(self, request, max_bytes, self._read_timeout_s)
        try:
            length = request.headers.get("content-length", "")
            if length.isdecimal() and int(length[:20]) > max_bytes:
                raise self.too_large(max_bytes)
            yield body
        finally:
            self._requests -= 1
            self.use(-body.held_bytes)

    @asynccontextmanager
    async def read(
        self,
        request: Request,
        max_bytes: int,
        copies: int,
        size_of: Callable[[bytearray], int] | None = None,
    ) -> AsyncIterator[bytearray]:
        """The whole body, whose memory counts against the budget for as long as the context lasts.

        Args:
            max_bytes: The route's limit.
            copies: Upper bound of the memory that parsing and passing on the body takes, in multiples of its size.
            size_of: The size that counts instead of its length. What it raises is raised.

        Raises:
            TooLarge: The body exceeds `max_bytes`.
            Overloaded: It does not fit into the budget now (429).
            HTTPException: It did not arrive in time (408).
        """
        async with self.open(request, max_bytes) as incoming:
            body = bytearray()
            async for piece in incoming.pieces():
                incoming.hold(len(body) + len(piece))
                body += piece
            size = await run_in_threadpool(size_of, body) if size_of else len(body)
            incoming.hold(size * copies)
            yield body

    def fits(self, more_bytes: int, body_bytes: int) -> bool:
        """Whether the budget has room for `more_bytes` of a body of `body_bytes`."""
        available = self._budget_bytes * (1.0 if body_bytes <= SMALL_BODY_BYTES else 1.0 - SMALL_SHARE)
        return self._used_bytes + more_bytes <= available

    def use(self, more_bytes: int) -> None:
        self._used_bytes += more_bytes
        self._metrics.body_bytes.set(self._used_bytes)

    def busy(self) -> Overloaded:
        self._metrics.refuse("busy")
        return Overloaded("the gateway is reading too many bodies at once; retry", code=429)

    def too_large(self, max_bytes: int) -> TooLarge:
        self._metrics.refuse("too_large")
        limit = f"{max_bytes >> 20} MiB" if max_bytes >= 2**20 else f"{max_bytes} bytes"
        return TooLarge(f"the body is larger than {limit}")

    def too_slow(self) -> HTTPException:
        self._metrics.refuse("slow")
        return HTTPException(408, f"the body did not arrive within {self._read_timeout_s:g} s")


class IncomingBody:
    """One body while it arrives, and what it holds of the budget."""

    def __init__(self, reader: BodyReader, request: Request, max_bytes: int, timeout_s: float) -> None:
        self._reader = reader
        self._request = request
        self._max_bytes = max_bytes
        self._left_s = timeout_s
        self._received_bytes = 0
        self.held_bytes = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """Only the time spent waiting for the client counts. Raises TooLarge, and HTTPException (408)."""
        stream = aiter(self._request.stream())
        while True:
            begin = time.monotonic()
            try:
                async with asyncio.timeout(self._left_s):
                    piece = await anext(stream, None)
            except TimeoutError:
                raise self._reader.too_slow() from None
            self._left_s -= time.monotonic() - begin
            if piece is None:
                return
            self._received_bytes += len(piece)
            if self._received_bytes > self._max_bytes:
                raise self._reader.too_large(self._max_bytes)
            yield piece

    def hold(self, wanted_bytes: int) -> None:
        """Change what is held to `wanted_bytes`. Raises Overloaded (429) where that does not fit into the budget."""
        more = wanted_bytes - self.held_bytes
        if more > 0 and not self._reader.fits(more, self._received_bytes):
            raise self._reader.busy()
        self._reader.use(more)
        self.held_bytes = wanted_bytes
