"""The server's limits on connections, slow headers and clients that do not read."""

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
from torchserve_models.gateway.server import BoundedProtocol, uvicorn_config

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
    running = uvicorn.Server(uvicorn_config(APP, "127.0.0.1", 0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(running.serve([listener]))
        while not running.started:
            await asyncio.sleep(0.01)
        yield listener.getsockname()
        running.should_exit = True
        await task


async def read_until_closed(reader, seconds=5):
    """Return everything received until the connection is closed."""
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), seconds)
    return b""


async def test_connection_with_an_incomplete_header_is_closed(address):
    reader, writer = await asyncio.open_connection(*address)
    start = time.monotonic()
    writer.write(b"GET / HTTP/1.1\r\nHost:")
    assert await read_until_closed(reader) == b""
    assert time.monotonic() - start > 0.3
    writer.close()


async def test_connection_with_a_slowly_sent_header_is_closed(address):
    reader, writer = await asyncio.open_connection(*address)
    ending = asyncio.create_task(read_until_closed(reader))
    with contextlib.suppress(ConnectionError):
        for _ in range(200):
            if ending.done():
                break
            writer.write(b"G")
            await writer.drain()
            await asyncio.sleep(0.02)
    assert ending.done()
    writer.close()


@pytest.mark.full
async def test_slow_response_does_not_close_the_connection(address):
    async with httpx.AsyncClient(base_url="http://{}:{}".format(*address)) as http:
        assert (await http.get("/slow")).text == "late"
        await asyncio.sleep(0.7)
        assert (await http.get("/")).text == "here"  # on the same connection


async def test_connection_of_a_client_that_does_not_read_is_closed(address):
    reader, writer = await asyncio.open_connection(*address, limit=1000)
    writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(1.5)
    with contextlib.suppress(ConnectionResetError):
        assert len(await reader.read(-1)) < LARGE
    writer.close()


async def test_connection_above_the_limit_is_closed(address):
    connections = [await asyncio.open_connection(*address) for _ in range(5)]
    reader, writer = await asyncio.open_connection(*address)
    assert await read_until_closed(reader, 0.4) == b""  # at once, before the header timeout
    writer.close()
    reader, writer = connections[0]
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"here" in await read_until_closed(reader)
    for _, writer in connections:
        writer.close()


async def test_large_header_is_rejected(address):
    reader, writer = await asyncio.open_connection(*address)
    with contextlib.suppress(ConnectionError):
        writer.write(b"GET / HTTP/1.1\r\nA: " + b"x" * 4 * server.MAX_HEADER_BYTES)
        await writer.drain()
    assert b"here" not in await read_until_closed(reader)
    writer.close()
