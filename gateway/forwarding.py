"""Pass a request's headers, deadline and end on to TorchServe."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import httpx
from starlette.requests import ClientDisconnect, Request

from client import Timeout
from handlers.core.errors import InvalidParameter

T = TypeVar("T")
FORWARDED = ("x-request-timeout", "x-request-start", "x-edge-id", "x-request-id")
MAX_CLOCK_SKEW_S = 5.0
MAX_AGE_S = 3600.0
_headers: ContextVar[Mapping[str, str]] = ContextVar("forwarded headers")


class ForwardingTransport(httpx.AsyncBaseTransport):
    """Adds the headers of the request that is being answered, in place of the client library's own."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers.update(_headers.get({}))
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self._transport.aclose()


@asynccontextmanager
async def forwarded(request: Request) -> AsyncIterator[None]:
    """Within the context, requests to TorchServe carry this request's headers and end with its deadline.

    Raises InvalidParameter for an X-Request-Timeout that is not a time, and Timeout (504) once it has passed.
    """
    timeout_s, left_s = _time_left(request.headers, time.time())
    token = _headers.set({name: request.headers[name] for name in FORWARDED if name in request.headers})
    try:
        if left_s is not None and left_s <= 0:
            raise _too_late(timeout_s)
        try:
            async with asyncio.timeout(left_s) as deadline:
                yield
        except TimeoutError:
            if not deadline.expired():
                raise
            raise _too_late(timeout_s) from None
    finally:
        _headers.reset(token)


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, but cancel it when the client leaves, which raises ClientDisconnect.

    To be called when the request's body has been read.
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


def _time_left(headers: Mapping[str, str], now: float) -> tuple[float, float | None]:
    """X-Request-Timeout, and the seconds that are left of it; None without a timeout."""
    text = headers.get("x-request-timeout")
    if text is None:
        return math.inf, None
    timeout_s = _number(text)
    if timeout_s is None or timeout_s <= 0:
        raise InvalidParameter(
            f"the header X-Request-Timeout must be a number of seconds above 0, not {text[:20]!r}"
        )
    start = _number(headers.get("x-request-start", ""))
    plausible = start is not None and now - MAX_AGE_S <= start <= now + MAX_CLOCK_SKEW_S
    age_s = max(now - start, 0.0) if start is not None and plausible else 0.0
    return timeout_s, timeout_s - age_s


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _too_late(timeout_s: float) -> Timeout:
    error = Timeout(f"no answer within the {timeout_s:g} s of X-Request-Timeout")
    error.code, error.type = 504, "DeadlineExceeded"
    return error
