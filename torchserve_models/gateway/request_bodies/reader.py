"""Read request bodies with limits on the bytes of one body, the bytes of all bodies together, and the time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from prometheus_client import Gauge
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from handlers.core.errors import TooLarge
from torchserve_models.client import Overloaded
from torchserve_models.gateway.settings import BUDGET_BYTES, READ_TIMEOUT_S

SMALL_BODY_BYTES = 64 * 2**10
SMALL_SHARE = 0.25
"""Share of the budget that is reserved for small bodies, so that large ones cannot crowd them out."""
MAX_REQUESTS = 512
"""Concurrent requests with a body. Their connections and tasks also need memory."""


class BodyMetrics(Protocol):
    """The metrics of one reader."""

    body_bytes: Gauge

    def count_rejected(self, reason: str) -> None:
        """Count a rejected body."""


class BodyReader:
    """Reader of bodies within one memory budget. A body that does not fit is rejected at once."""

    def __init__(
        self,
        metrics: BodyMetrics,
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
        """Return a body that is read in chunks. Its part of the budget is freed when the context ends.

        Raises:
            TooLarge: The declared length exceeds `max_bytes`.
            Overloaded: There are too many concurrent requests (429).
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
        """Return the whole body, which uses the budget until the context ends.

        Args:
            request: The request to read.
            max_bytes: The route's limit.
            copies: Upper bound of the memory for parsing and forwarding the body, in multiples of its size.
            size_of: Returns the size to use instead of the body's length. Its exceptions are not caught.

        Raises:
            TooLarge: The body exceeds `max_bytes`.
            Overloaded: The body does not fit into the remaining budget (429).
            HTTPException: The body did not arrive in time (408).
        """
        async with self.open(request, max_bytes) as incoming:
            body = bytearray()
            async for chunk in incoming.chunks():
                incoming.hold(len(body) + len(chunk))
                body += chunk
            size = await run_in_threadpool(size_of, body) if size_of else len(body)
            incoming.hold(size * copies)
            yield body

    def fits(self, more_bytes: int, body_bytes: int) -> bool:
        """Return whether the budget has room for `more_bytes` more of a body of `body_bytes`."""
        available = self._budget_bytes * (1.0 if body_bytes <= SMALL_BODY_BYTES else 1.0 - SMALL_SHARE)
        return self._used_bytes + more_bytes <= available

    def use(self, more_bytes: int) -> None:
        """Add `more_bytes`, which may be negative, to the used part of the budget."""
        self._used_bytes += more_bytes
        self._metrics.body_bytes.set(self._used_bytes)

    def busy(self) -> Overloaded:
        self._metrics.count_rejected("busy")
        return Overloaded("the gateway is reading too many bodies at once; retry", code=429)

    def too_large(self, max_bytes: int) -> TooLarge:
        self._metrics.count_rejected("too_large")
        limit = f"{max_bytes >> 20} MiB" if max_bytes >= 2**20 else f"{max_bytes} bytes"
        return TooLarge(f"the body is larger than {limit}")

    def too_slow(self) -> HTTPException:
        self._metrics.count_rejected("slow")
        return HTTPException(408, f"the body did not arrive within {self._read_timeout_s:g} s")


class IncomingBody:
    """A body that is being received, and its part of the budget."""

    def __init__(self, reader: BodyReader, request: Request, max_bytes: int, timeout_s: float) -> None:
        self._reader = reader
        self._request = request
        self._max_bytes = max_bytes
        self._remaining_s = timeout_s
        self._received_bytes = 0
        self.held_bytes = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body's chunks. The time limit only includes the time spent waiting for the client.

        Raises:
            TooLarge: The body exceeds its limit.
            HTTPException: The body did not arrive in time (408).
        """
        stream = aiter(self._request.stream())
        while True:
            begin = time.monotonic()
            try:
                async with asyncio.timeout(self._remaining_s):
                    chunk = await anext(stream, None)
            except TimeoutError:
                raise self._reader.too_slow() from None
            self._remaining_s -= time.monotonic() - begin
            if chunk is None:
                return
            self._received_bytes += len(chunk)
            if self._received_bytes > self._max_bytes:
                raise self._reader.too_large(self._max_bytes)
            yield chunk

    def hold(self, total_bytes: int) -> None:
        """Set the body's part of the budget to `total_bytes`. Raises Overloaded (429) if that does not fit."""
        more_bytes = total_bytes - self.held_bytes
        if more_bytes > 0 and not self._reader.fits(more_bytes, self._received_bytes):
            raise self._reader.busy()
        self._reader.use(more_bytes)
        self.held_bytes = total_bytes
