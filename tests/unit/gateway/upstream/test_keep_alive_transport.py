"""The transport against a server that answers as it is told, on real connections."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest

from torchserve_models.gateway.upstream.keep_alive_transport import KeepAliveTransport

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-A: b\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Server:
    """Server that sends the next of `answers` for each request, and closes the connection after an empty rest."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.connections = 0
        self.bodies = []

    async def handle(self, reader, writer):
        self.connections += 1
        try:
            while self.answers:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                self.bodies.append(
                    await reader.readexactly(int(head.split("content-length: ")[1].split("\r")[0]))
                )
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def started(*answers):
    server = Server(*answers)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/predictions/a"
    transport = KeepAliveTransport()
    try:
        yield server, transport, url
    finally:
        await transport.aclose()
        listener.close()
        await asyncio.sleep(0.01)  # both sides close their connections


async def send(transport, url, body=b"abc", **timeout):
    request = httpx.Request("POST", url, content=body, extensions={"timeout": timeout})
    return await transport.handle_async_request(request)


async def test_connection_is_kept_and_used_again():
    async with started(OK, OK, OK) as (server, transport, url):
        for _ in range(3):
            response = await send(transport, url)
            assert (response.status_code, response.headers["x-a"], await response.aread()) == (
                200,
                "b",
                b"ok",
            )
    assert server.connections == 1
    assert server.bodies == [b"abc"] * 3


async def test_chunks_are_separate_parts():
    parts = b"3\r\none\r\n3;x=y\r\ntwo\r\n0\r\n\r\n"
    async with started(CHUNKED + parts, OK) as (server, transport, url):
        response = await send(transport, url)
        assert [part async for part in response.aiter_raw()] == [b"one", b"two"]
        assert await (await send(transport, url)).aread() == b"ok"
    assert server.connections == 1


async def test_body_without_a_length_ends_with_the_connection():
    async with started(b"HTTP/1.1 200 OK\r\n\r\nrest") as (_, transport, url):
        assert await (await send(transport, url)).aread() == b"rest"


async def test_request_on_a_closed_connection_is_sent_on_a_new_one():
    async with started(OK, None, OK) as (server, transport, url):
        assert await (await send(transport, url)).aread() == b"ok"
        assert await (await send(transport, url)).aread() == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, httpx.ReadError),
        (b"HTTP/1.1 200", httpx.ReadError),
        (b"garbage\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", httpx.RemoteProtocolError),
        (CHUNKED + b"x\r\n", httpx.RemoteProtocolError),
        (CHUNKED + b"ffffffff\r\n", httpx.RemoteProtocolError),
        (CHUNKED + b"3\r\no", httpx.RemoteProtocolError),
    ],
)
async def test_broken_answer_is_an_error(answer, error):
    async with started(answer) as (_, transport, url):
        with pytest.raises(error):
            await (await send(transport, url)).aread()


async def test_unread_answer_closes_its_connection():
    async with started(OK, OK) as (server, transport, url):
        await (await send(transport, url)).aclose()
        assert await (await send(transport, url)).aread() == b"ok"
    assert server.connections == 2


async def test_timeouts_are_errors():
    async with started(b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", OK) as (_, transport, url):
        with pytest.raises(httpx.ReadTimeout):
            await send(transport, url, read=0.1)
        with pytest.raises(httpx.ReadTimeout):
            await (await send(transport, url, read=0.1)).aread()


async def test_server_that_does_not_listen_is_a_connection_error():
    async with started() as (_, _, url):
        pass
    with pytest.raises(httpx.ConnectError):
        await send(KeepAliveTransport(), url)
