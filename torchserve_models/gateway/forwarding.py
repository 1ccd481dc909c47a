"""Pass a request's headers, deadline and end on to TorchServe."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import httpx
from starlette.requests import ClientDisconnect, Request

from handlers.core.deadline import RESERVED_KEYS, TIMEOUT_HEADER, read_arrival
from torchserve_models.client import Timeout

T = TypeVar("T")
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

    Raises InvalidRequest for an X-Request-Timeout that is not a time, and Timeout (504) once it has passed.
    """
    values = {name: request.headers[name] for name in RESERVED_KEYS if name in request.headers}
    now = time.monotonic()
    arrival = read_arrival(values, now)
    if arrival.error is not None:
        raise arrival.error
    token = _headers.set(values)
    try:
        if arrival.has_expired(now):
            raise _too_late(values[TIMEOUT_HEADER])
        left_s = None if arrival.deadline is None else arrival.deadline - now
        try:
            async with asyncio.timeout(left_s) as deadline:
                yield
        except TimeoutError:
            if not deadline.expired():
                raise
            raise _too_late(values[TIMEOUT_HEADER]) from None
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


def _too_late(timeout: str) -> Timeout:
    error = Timeout(f"no answer within the {float(timeout):g} s of X-Request-Timeout")
    error.code, error.type = 504, "DeadlineExceeded"
    return error
