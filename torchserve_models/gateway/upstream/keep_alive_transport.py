"""HTTP transport to TorchServe over connections that stay open.

httpx's own transport needs most of the time of a short prediction. This one yields the chunks of a chunked response
as the server sent them, so that the parts of a stream remain separate.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import httpx

MAX_IDLE_CONNECTIONS = 64
MAX_CHUNK_BYTES = 17 * 2**20
"""More than TorchServe's max_response_size."""
PIECE_BYTES = 2**16

_Address = tuple[str, int, bool]
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_LOST = (OSError, EOFError)


class KeepAliveTransport(httpx.AsyncBaseTransport):
    """Transport for requests that may be sent twice: it repeats one whose open connection the server has closed."""

    def __init__(self) -> None:
        self._idle: dict[_Address, list[_Streams]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return the response once its header has arrived. Raises httpx.TransportError."""
        timeouts = request.extensions.get("timeout", {})
        body = await request.aread()
        head = _encode_head(request)
        address = _address(request.url)
        while True:
            idle = self._idle.get(address)
            is_reused = bool(idle)
            streams = idle.pop() if idle else await _connect(address, timeouts.get("connect"))
            reader, writer = streams
            try:
                async with asyncio.timeout(timeouts.get("read")):
                    writer.write(head)
                    writer.write(body)
                    await writer.drain()
                    status, headers = _parse_head(await reader.readuntil(b"\r\n\r\n"))
            except TimeoutError:
                writer.close()
                raise httpx.ReadTimeout("the server did not answer in time", request=request) from None
            except _LOST as error:
                writer.close()
                if is_reused:
                    continue
                raise httpx.ReadError(f"the connection broke: {error!r}", request=request) from error
            except (ValueError, asyncio.LimitOverrunError) as error:
                writer.close()
                raise httpx.RemoteProtocolError(f"not HTTP/1.1: {error}", request=request) from error
            except BaseException:
                writer.close()
                raise
            body_stream = _ResponseBody(streams, headers, timeouts, partial(self._keep, address, streams))
            return httpx.Response(status, headers=headers, stream=body_stream)

    async def aclose(self) -> None:
        for connections in self._idle.values():
            while connections:
                connections.pop()[1].close()

    def _keep(self, address: _Address, streams: _Streams) -> None:
        idle = self._idle.setdefault(address, [])
        if len(idle) < MAX_IDLE_CONNECTIONS:
            idle.append(streams)
        else:
            streams[1].close()


class _ResponseBody(httpx.AsyncByteStream):
    """The body of a response: a known number of bytes, chunks, or everything until the end of the connection."""

    def __init__(
        self,
        streams: _Streams,
        headers: list[tuple[bytes, bytes]],
        timeouts: Mapping[str, Any],
        keep: Callable[[], None],
    ) -> None:
        self._reader, self._writer = streams
        self._timeouts = timeouts
        self._keep = keep
        values = {name.lower(): value.lower() for name, value in headers}
        self._is_chunked = b"chunked" in values.get(b"transfer-encoding", b"")
        self._length = int(values.get(b"content-length", b"-1"))
        has_end = self._is_chunked or self._length >= 0
        self._keeps_alive = has_end and b"close" not in values.get(b"connection", b"")
        self._is_complete = False
        self._is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            pieces = self._chunks() if self._is_chunked else self._pieces()
            async for piece in pieces:
                yield piece
            self._is_complete = True
        except TimeoutError:
            raise httpx.ReadTimeout("the server did not finish its answer in time") from None
        except (*_LOST, ValueError, asyncio.LimitOverrunError) as error:
            raise httpx.RemoteProtocolError(f"the answer is incomplete: {error!r}") from error
        finally:
            if not self._is_complete:
                await self.aclose()

    async def aclose(self) -> None:
        """Keep the connection if the whole body has been read, otherwise close it."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_complete and self._keeps_alive:
            self._keep()
        else:
            self._writer.close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        remaining = self._length
        while remaining:
            async with asyncio.timeout(self._timeouts.get("read")):
                piece = await self._reader.read(PIECE_BYTES if remaining < 0 else min(remaining, PIECE_BYTES))
            if not piece:
                if remaining < 0:
                    return
                raise EOFError("the connection ended early")
            remaining -= len(piece) if remaining > 0 else 0
            yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            async with asyncio.timeout(self._timeouts.get("read")):
                size = int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16)
                if not 0 <= size <= MAX_CHUNK_BYTES:
                    raise ValueError(f"a chunk of {size} bytes")
                chunk = await self._reader.readexactly(size + 2)
            if not size:
                return
            yield chunk[:-2]


async def _connect(address: _Address, timeout_s: float | None) -> _Streams:
    host, port, is_tls = address
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.open_connection(host, port, ssl=is_tls or None)
    except TimeoutError:
        raise httpx.ConnectTimeout(f"no connection to {host}:{port} in time") from None
    except OSError as error:
        raise httpx.ConnectError(str(error)) from error


def _address(url: httpx.URL) -> _Address:
    is_tls = url.scheme == "https"
    return url.host, url.port or (443 if is_tls else 80), is_tls


def _encode_head(request: httpx.Request) -> bytes:
    target = request.extensions.get("target") or request.url.raw_path
    lines = [request.method.encode("ascii") + b" " + target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in request.headers.raw]
    return b"\r\n".join([*lines, b"\r\n"])


def _parse_head(head: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Return the status and the headers. Raises ValueError."""
    status_line, *fields = head[:-4].split(b"\r\n")
    headers = []
    for line in fields:
        name, _, value = line.partition(b":")
        headers.append((name, value.strip()))
    return int(status_line[len(b"HTTP/1.1 ") :][:3]), headers
