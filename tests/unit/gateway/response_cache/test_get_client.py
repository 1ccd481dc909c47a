"""GET requests over connections that stay open, to a real socket."""

import asyncio

import pytest

from torchserve_models.gateway.response_cache import get_client
from torchserve_models.gateway.response_cache.get_client import GetClient

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-Length: 2\r\n\r\n{}"


class Server:
    """A server that sends `answers` one after another; None closes the connection. `heads` lists the requests."""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        self.heads: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        writer.close()


@pytest.fixture
async def server():
    fake = Server()
    listener = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = listener.sockets[0].getsockname()[1]
    yield fake
    listener.close()


@pytest.fixture
async def client(server):
    connection = GetClient(f"http://127.0.0.1:{server.port}")
    yield connection
    connection.close()


async def test_requests_share_a_connection(server, client):
    server.answers = [ANSWER] * 3
    assert [await client.get("/models/a") for _ in range(3)] == [(200, b"{}")] * 3
    assert server.connections == 1
    assert server.heads[0] == f"GET /models/a HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()


async def test_connection_is_closed_after_an_error(server, client):
    server.answers = [b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", ANSWER]
    assert await client.get("/a") == (404, b"{}")
    assert await client.get("/a") == (200, b"{}")
    assert server.connections == 2


async def test_request_is_sent_again_if_an_idle_connection_was_closed(server, client):
    server.answers = [ANSWER, None, ANSWER]
    await client.get("/a")
    assert await client.get("/a") == (200, b"{}")
    assert server.connections == 2


async def test_new_connection_that_breaks_is_an_error(server, client):
    server.answers = [None]
    with pytest.raises(EOFError):
        await client.get("/a")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"Transfer-Encoding: chunked", "no Content-Length"),
        (b"Content-Length: x", "invalid literal"),
        (b"Content-Length: 999999999", "too large"),
        (b"X: " + b"a" * 2**17, "header is too large"),
    ],
)
async def test_unusable_answer_is_an_error(server, client, header, message):
    server.answers = [b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n"]
    with pytest.raises(ValueError, match=message):
        await client.get("/a")


@pytest.mark.parametrize("status_line", [b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 OK", b"200"])
async def test_malformed_status_line_is_an_error(server, client, status_line):
    server.answers = [status_line + b"\r\nContent-Length: 2\r\n\r\n{}"]
    with pytest.raises(ValueError, match="invalid literal"):
        await client.get("/a")


async def test_canceled_request_does_not_leave_its_answer_to_the_next(server, client):
    server.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlo", ANSWER]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.get("/a")
    assert await client.get("/a") == (200, b"{}")
    assert server.connections == 2


async def test_idle_connections_are_limited(server, client, monkeypatch):
    monkeypatch.setattr(get_client, "MAX_IDLE_CONNECTIONS", 1)
    server.answers = [ANSWER] * 4
    await asyncio.gather(client.get("/a"), client.get("/a"))
    await asyncio.gather(client.get("/a"), client.get("/a"))
    assert server.connections == 3
