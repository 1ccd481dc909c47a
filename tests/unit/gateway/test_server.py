"""uvicorn's bounds: connections, slow headers, clients that do not read."""

import asyncio
import contextlib
import socket
import time

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from torchserve_models.gateway import server
from torchserve_models.gateway.server import BoundedProtocol, configure

LARGE = 32 * 2**20


async def small(request):
    await request.body()
    return Response("here")


async def slow(request):
    await asyncio.sleep(1)
    return Response("late")


async def large(request):
    return Response(b"x" * LARGE)


APP = Starlette(
    routes=[Route("/", small, methods=["GET", "POST"]), Route("/slow", slow), Route("/large", large)]
)


@pytest.fixture
async def address(monkeypatch):
    monkeypatch.setattr(BoundedProtocol, "max_connections", 5)
    monkeypatch.setattr(BoundedProtocol, "header_timeout_s", 0.5)
    monkeypatch.setattr(BoundedProtocol, "write_timeout_s", 0.5)
    running = uvicorn.Server(configure(APP, "127.0.0.1", 0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(running.serve([listener]))
        while not running.started:
            await asyncio.sleep(0.01)
        yield listener.getsockname()
        running.should_exit = True
        await task


async def end_of(reader, seconds=5):
    """All that comes until the connection is closed."""
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), seconds)
    return b""


async def test_a_client_that_sends_no_whole_header_is_cut_off(address):
    reader, writer = await asyncio.open_connection(*address)
    start = time.monotonic()
    writer.write(b"GET / HTTP/1.1\r\nHost:")
    assert await end_of(reader) == b""
    assert time.monotonic() - start > 0.3
    writer.close()


async def test_dripping_does_not_help(address):
    reader, writer = await asyncio.open_connection(*address)
    ending = asyncio.create_task(end_of(reader))
    with contextlib.suppress(ConnectionError):
        for _ in range(200):
            if ending.done():
                break
            writer.write(b"G")
            await writer.drain()
            await asyncio.sleep(0.02)
    assert ending.done()
    writer.close()


async def test_a_slow_answer_is_none_of_the_clients_fault(address):
    async with httpx.AsyncClient(base_url="http://{}:{}".format(*address)) as http:
        assert (await http.get("/slow")).text == "late"
        await asyncio.sleep(0.7)
        assert (await http.get("/")).text == "here"  # on the same connection


async def test_a_client_that_does_not_read_is_cut_off(address):
    reader, writer = await asyncio.open_connection(*address, limit=1000)
    writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(1.5)
    with contextlib.suppress(ConnectionResetError):
        assert len(await reader.read(-1)) < LARGE
    writer.close()


async def test_more_connections_than_allowed_are_closed(address):
    open_ones = [await asyncio.open_connection(*address) for _ in range(5)]
    reader, writer = await asyncio.open_connection(*address)
    assert await end_of(reader, 0.4) == b""  # at once, before the header's time is over
    writer.close()
    reader, writer = open_ones[0]
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"here" in await end_of(reader)
    for _, writer in open_ones:
        writer.close()


async def test_a_large_header_is_refused(address):
    reader, writer = await asyncio.open_connection(*address)
    with contextlib.suppress(ConnectionError):
        writer.write(b"GET / HTTP/1.1\r\nA: " + b"x" * 4 * server.MAX_HEADER_BYTES)
        await writer.drain()
    assert b"here" not in await end_of(reader)
    writer.close()
