"""HTTP/1.1 as little as a load generator needs: whole requests made beforehand, and the end of an answer found."""

import asyncio
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

_BOUNDARY = b"----benchmark"


@dataclass(frozen=True)
class Target:
    """Where to send, what, and what a right answer holds: `marker` exactly `count` times, up to `slack` fewer.

    `requests` are whole HTTP requests, or the messages of the gRPC method `path`. `count` is one number for all of
    them, or one for each; `tokens` are the new tokens that each asks for, nothing where no text is generated.
    """

    host: str
    port: int
    requests: tuple[bytes, ...]
    marker: bytes
    count: int | tuple[int, ...]
    protocol: Literal["http", "grpc"] = "http"
    path: str = ""
    timeout: float = 60.0
    slack: int = 0
    tokens: tuple[int, ...] = ()

    def problem(self, number: int, body: bytes) -> str | None:
        """What is wrong with an answer of status 200 to that request."""
        wanted = self.count if isinstance(self.count, int) else self.count[number]
        return None if wanted - self.slack <= body.count(self.marker) <= wanted else "wrong answer"


class Reply(NamedTuple):
    status: int
    body: bytes
    keep_alive: bool


def post(path: str, body: bytes, content_type: str, host: str = "127.0.0.1") -> bytes:
    """A whole request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nAccept: */*\r\n\r\n"
    )
    return head.encode() + body


def post_file(path: str, field: str, content: bytes) -> bytes:
    """The same as a form with one file, as a browser or `curl -F` sends it."""
    head = (
        b"--" + _BOUNDARY + b'\r\nContent-Disposition: form-data; name="' + field.encode() + b'"; '
        b'filename="image.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    body = head + content + b"\r\n--" + _BOUNDARY + b"--\r\n"
    return post(path, body, f"multipart/form-data; boundary={_BOUNDARY.decode()}")


def read_reply(data: bytes | bytearray, closed: bool = False) -> Reply | None:
    """The answer that `data` begins with, None while it is not whole. Raises ValueError for what is no HTTP."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    status_line, *lines = bytes(data[:end]).split(b"\r\n")
    status = int(status_line.split(b" ", 2)[1])
    headers = {
        key.strip().lower(): value.strip() for key, _, value in (line.partition(b":") for line in lines)
    }
    keep_alive = headers.get(b"connection", b"").lower() != b"close" and not closed
    start = end + 4
    if status == 100:
        return read_reply(data[start:], closed)
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = _chunks(data, start)
        return None if body is None else Reply(status, body, keep_alive)
    if b"content-length" in headers:
        length = int(headers[b"content-length"])
        return (
            Reply(status, bytes(data[start : start + length]), keep_alive)
            if len(data) >= start + length
            else None
        )
    return Reply(status, bytes(data[start:]), False) if closed else None


def _chunks(data: bytes | bytearray, at: int) -> bytes | None:
    body = b""
    while (line := data.find(b"\r\n", at)) >= 0:
        size = int(bytes(data[at:line]).split(b";")[0], 16)
        at = line + 2
        if len(data) < at + size + 2:
            return None
        if size == 0:
            return body
        body += data[at : at + size]
        at += size + 2
    return None


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._answer: asyncio.Future[Reply] | None = None
        self._transport: asyncio.Transport | None = None
        self.alive = True
        self.used = False

    async def ask(self, request: bytes) -> Reply:
        """Raises ConnectionError when the server closes before it has answered."""
        assert self._transport is not None
        self._data.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        reply = await self._answer
        self.used = True
        if not reply.keep_alive:
            self.close()
        return reply

    def close(self) -> None:
        self.alive = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._look(closed=False)

    def connection_lost(self, _error: Exception | None) -> None:
        self.alive = False
        self._look(closed=True)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("closed"))

    def _look(self, closed: bool) -> None:
        if self._answer is None or self._answer.done():
            return
        try:
            reply = read_reply(self._data, closed)
        except (ValueError, IndexError):
            self._answer.set_exception(ConnectionAbortedError("no HTTP"))
        else:
            if reply is not None:
                self._answer.set_result(reply)
