"""The clients of the load generator: HTTP over kept-alive connections, and gRPC over one channel."""

import asyncio
import time
from typing import Protocol

from torchserve_models.loadgen.http import HttpConnection, Target

KEEP_ALIVE_RACE_S = 0.02
"""Time after which a lost idle connection is an error: before, the server may have closed it during the send."""


class LoadClient(Protocol):
    async def send(self, index: int) -> str | None:
        """Send request `index` of the target and return the problem of the answer, None if it was correct."""

    async def close(self) -> None: ...


def create_client(target: Target) -> LoadClient:
    return HttpClient(target) if target.protocol == "http" else GrpcClient(target)


class HttpClient:
    """An HTTP client that opens one connection per concurrent request and reuses the most recently used one first."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._idle: list[HttpConnection] = []

    async def send(self, index: int) -> str | None:
        try:
            async with asyncio.timeout(self._target.timeout):
                return await self._send(index)
        except TimeoutError:
            return "timeout"
        except OSError:  # refused, reset, or no file descriptor left
            return "connection lost"

    async def _send(self, index: int) -> str | None:
        request = self._target.requests[index]
        connection = await self._get_connection()
        start = time.perf_counter()
        try:
            response = await connection.send(request)
        except ConnectionResetError:
            if not connection.was_used or time.perf_counter() - start > KEEP_ALIVE_RACE_S:
                raise
            connection = await self._open_connection()  # the server closed the idle connection: not an error
            response = await connection.send(request)
        except asyncio.CancelledError:
            connection.close()
            raise
        if connection.is_open:
            self._idle.append(connection)
        if response.status != 200:
            return f"HTTP {response.status}"
        return self._target.find_problem(index, response.body)

    async def _get_connection(self) -> HttpConnection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return await self._open_connection()

    async def _open_connection(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(HttpConnection, self._target.host, self._target.port)
        return connection

    async def close(self) -> None:
        for connection in self._idle:
            connection.close()


class GrpcClient:
    """A gRPC client that sends serialized messages over one channel and does not parse the answers."""

    def __init__(self, target: Target) -> None:
        import grpc

        self._target = target
        self._error_type = grpc.aio.AioRpcError
        self._channel = grpc.aio.insecure_channel(f"{target.host}:{target.port}")
        self._call = self._channel.unary_unary(target.path, None, None)

    async def send(self, index: int) -> str | None:
        try:
            answer = await self._call(self._target.requests[index], timeout=self._target.timeout)
        except self._error_type as error:
            return str(error.code().name).lower().replace("_", " ")
        return self._target.find_problem(index, answer)

    async def close(self) -> None:
        await self._channel.close(None)
