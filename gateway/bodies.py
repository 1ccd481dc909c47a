"""Read request bodies within bounds: bytes per body, bytes of all bodies together, and time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from client import Overloaded
from gateway.metrics import GatewayMetrics
from handlers.core.errors import TooLarge

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
    async def read(
        self,
        request: Request,
        max_bytes: int,
        copies: int,
        size_of: Callable[[bytearray], int] | None = None,
    ) -> AsyncIterator[bytearray]:
        """The body, whose memory counts against the budget for as long as the context lasts.

        Args:
            max_bytes: The route's limit.
            copies: Upper bound of the memory that parsing and passing on the body takes, in multiples of its size.
            size_of: Its size when it is unpacked, which counts instead; what it raises is raised.

        Raises:
            TooLarge: The body exceeds `max_bytes`.
            Overloaded: It does not fit into the budget now (429).
            HTTPException: It did not arrive in time (408).
        """
        if self._requests >= self._max_requests:
            raise self._busy()
        self._requests += 1
        reserved = 0
        try:
            length = request.headers.get("content-length", "")
            if length.isdecimal() and int(length[:20]) > max_bytes:
                raise self._too_large(max_bytes)
            body = bytearray()
            try:
                async with asyncio.timeout(self._read_timeout_s):
                    async for chunk in request.stream():
                        if len(body) + len(chunk) > max_bytes:
                            raise self._too_large(max_bytes)
                        size = len(body) + len(chunk)
                        reserved = self._reserve(reserved, size, size)
                        body += chunk
            except TimeoutError:
                self._metrics.refuse("slow")
                raise HTTPException(
                    408, f"the body did not arrive within {self._read_timeout_s:g} s"
                ) from None
            unpacked = await run_in_threadpool(size_of, body) if size_of else len(body)
            reserved = self._reserve(reserved, max(unpacked, len(body)) * copies, len(body))
            yield body
        finally:
            self._requests -= 1
            self._set_used(self._used_bytes - reserved)

    def _reserve(self, reserved: int, wanted: int, body_bytes: int) -> int:
        """Change a reservation from `reserved` to `wanted` bytes, which is returned. Raises Overloaded."""
        available = self._budget_bytes * (1.0 if body_bytes <= SMALL_BODY_BYTES else 1.0 - SMALL_SHARE)
        used = self._used_bytes - reserved + wanted
        if used > available:
            raise self._busy()
        self._set_used(used)
        return wanted

    def _set_used(self, used_bytes: int) -> None:
        self._used_bytes = used_bytes
        self._metrics.body_bytes.set(used_bytes)

    def _busy(self) -> Overloaded:
        self._metrics.refuse("busy")
        return Overloaded("the gateway is reading too many bodies at once; retry", code=429)

    def _too_large(self, max_bytes: int) -> TooLarge:
        self._metrics.refuse("too_large")
        limit = f"{max_bytes >> 20} MiB" if max_bytes >= 2**20 else f"{max_bytes} bytes"
        return TooLarge(f"the body is larger than {limit}")
