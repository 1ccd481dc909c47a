"""Distribute predictions among several TorchServe servers."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence

import httpx

REFUSED = (429, 503)
"""The queue is full, or the model has no worker."""


class BalancingTransport(httpx.AsyncBaseTransport):
    """Transport to the least busy server, and to one other if that server refuses a request or cannot be reached."""

    def __init__(self, transport: httpx.AsyncBaseTransport, servers: Sequence[str]) -> None:
        """
        Args:
            transport: Sends the requests.
            servers: The servers' URLs. Requests for the first one may go to each of them.
        """
        self._transport = transport
        self._servers = [httpx.URL(url) for url in servers]
        self._in_progress: Counter[httpx.URL] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        first, *others = sorted(self._servers, key=self._in_progress.__getitem__)
        try:
            response = await self._send(request, first)
        except httpx.TransportError as error:
            if not others or isinstance(error, httpx.TimeoutException):
                raise
        else:
            if not others or response.status_code not in REFUSED:
                return response
            await response.aclose()
        return await self._send(request, others[0])

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _send(self, request: httpx.Request, server: httpx.URL) -> httpx.Response:
        request.url = request.url.copy_with(scheme=server.scheme, host=server.host, port=server.port)
        request.headers["host"] = server.netloc.decode("ascii")
        self._in_progress[server] += 1
        try:
            response = await self._transport.handle_async_request(request)
        except BaseException:
            self._in_progress[server] -= 1
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _CountedBody(response.stream, self._in_progress, server)
        return response


class _CountedBody(httpx.AsyncByteStream):
    """A response's body, until whose end the request is in progress."""

    def __init__(
        self, stream: httpx.AsyncByteStream, in_progress: Counter[httpx.URL], server: httpx.URL
    ) -> None:
        self._stream = stream
        self._in_progress = in_progress
        self._server: httpx.URL | None = server

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        if self._server is not None:
            self._in_progress[self._server] -= 1
            self._server = None
        await self._stream.aclose()
