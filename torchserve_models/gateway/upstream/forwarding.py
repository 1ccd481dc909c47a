"""Forward a request's headers, deadline and cancellation to TorchServe."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import httpx
from starlette.requests import ClientDisconnect, Request

from handlers.core.deadline import RESERVED_KEYS, TIMEOUT_HEADER, read_timing
from torchserve_models.client import Timeout

T = TypeVar("T")
_headers: ContextVar[Mapping[str, str]] = ContextVar("forwarded headers")


class ForwardingTransport(httpx.AsyncBaseTransport):
    """HTTP transport that adds the headers of the current request, replacing those of the client library."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers.update(_headers.get({}))
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self._transport.aclose()


@asynccontextmanager
async def forward_context(request: Request) -> AsyncIterator[None]:
    """Apply the headers and deadline of `request` to all TorchServe requests made in this context.

    Raises:
        InvalidRequest: X-Request-Timeout is not a valid time.
        Timeout: The deadline has passed (504).
    """
    values = {name: request.headers[name] for name in RESERVED_KEYS if name in request.headers}
    now = time.monotonic()
    timing = read_timing(values, now)
    if timing.error is not None:
        raise timing.error
    token = _headers.set(values)
    try:
        if timing.has_expired(now):
            raise _deadline_exceeded(values[TIMEOUT_HEADER])
        remaining_s = None if timing.deadline is None else timing.deadline - now
        try:
            async with asyncio.timeout(remaining_s) as deadline:
                yield
        except TimeoutError:
            if not deadline.expired():
                raise
            raise _deadline_exceeded(values[TIMEOUT_HEADER]) from None
    finally:
        _headers.reset(token)


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, or cancel it and raise ClientDisconnect when the client disconnects.

    Call this after the request's body has been read.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _deadline_exceeded(timeout: str) -> Timeout:
    error = Timeout(f"no answer within the {float(timeout):g} s of X-Request-Timeout")
    error.code, error.type = 504, "DeadlineExceeded"
    return error
