"""A minimal HTTP/1.1 client for requests built in advance. It only detects the end of a response."""

import asyncio
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

_BOUNDARY = b"----loadgen"


@dataclass(frozen=True)
class Target:
    """A server, the requests to send, and the criteria for a correct answer.

    Attributes:
        requests: Complete HTTP requests, or serialized messages of the gRPC method `path`. They are sent in turn.
        marker: Text that a correct answer contains `count - slack` to `count` times.
        count: A number for all requests, or a number for each request.
        timeout: Seconds after which a request without an answer counts as an error.
        tokens: Number of new tokens of each request; empty if the model does not generate text.
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

    def find_problem(self, index: int, body: bytes) -> str | None:
        """Return the problem of a successful answer to request `index`, None if the answer is correct."""
        expected = self.count if isinstance(self.count, int) else self.count[index]
        is_correct = expected - self.slack <= body.count(self.marker) <= expected
        return None if is_correct else "wrong answer"


class Response(NamedTuple):
    status: int
    body: bytes
    keep_alive: bool


def post_request(path: str, body: bytes, content_type: str, host: str = "127.0.0.1") -> bytes:
    """Return a complete POST request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nAccept: */*\r\n\r\n"
    )
    return head.encode() + body


def multipart_request(path: str, field: str, content: bytes) -> bytes:
    """Return a complete POST request with a form that contains one JPEG file, as `curl -F` sends it."""
    head = (
        b"--" + _BOUNDARY + b'\r\nContent-Disposition: form-data; name="' + field.encode() + b'"; '
        b'filename="image.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    body = head + content + b"\r\n--" + _BOUNDARY + b"--\r\n"
    return post_request(path, body, f"multipart/form-data; boundary={_BOUNDARY.decode()}")


def parse_response(data: bytes | bytearray, closed: bool = False) -> Response | None:
    """Parse the response at the beginning of `data`.

    Args:
        data: All bytes received so far.
        closed: Whether the server has closed the connection.

    Returns:
        None while the response is incomplete.

    Raises:
        ValueError, IndexError: The data is not HTTP.
    """
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
        return parse_response(data[start:], closed)
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = _parse_chunks(data, start)
        return None if body is None else Response(status, body, keep_alive)
    if b"content-length" in headers:
        end = start + int(headers[b"content-length"])
        return Response(status, bytes(data[start:end]), keep_alive) if len(data) >= end else None
    return Response(status, bytes(data[start:]), False) if closed else None


def _parse_chunks(data: bytes | bytearray, offset: int) -> bytes | None:
    body = b""
    while (line_end := data.find(b"\r\n", offset)) >= 0:
        size = int(bytes(data[offset:line_end]).split(b";")[0], 16)
        offset = line_end + 2
        if len(data) < offset + size + 2:
            return None
        if size == 0:
            return body
        body += data[offset : offset + size]
        offset += size + 2
    return None


class HttpConnection(asyncio.Protocol):
    """A connection with at most one request in progress."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._response: asyncio.Future[Response] | None = None
        self._transport: asyncio.Transport | None = None
        self.is_open = True
        self.was_used = False

    async def send(self, request: bytes) -> Response:
        """Send a request and return its response.

        Raises:
            ConnectionResetError: The server closed the connection without an answer.
            ConnectionAbortedError: The answer is not HTTP.
        """
        assert self._transport is not None
        self._data.clear()
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        response = await self._response
        self.was_used = True
        if not response.keep_alive:
            self.close()
        return response

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._parse(closed=False)

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_open = False
        self._parse(closed=True)
        if self._response is not None and not self._response.done():
            self._response.set_exception(ConnectionResetError("closed"))

    def _parse(self, closed: bool) -> None:
        if self._response is None or self._response.done():
            return
        try:
            response = parse_response(self._data, closed)
        except (ValueError, IndexError):
            self._response.set_exception(ConnectionAbortedError("not HTTP"))
        else:
            if response is not None:
                self._response.set_result(response)
