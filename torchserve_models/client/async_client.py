"""The async client: the methods of the sync client, awaited, and documented there."""

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from torchserve_models.client.async_health import AsyncHealthMethods
from torchserve_models.client.async_management import AsyncManagementMethods
from torchserve_models.client.bulk_map import AsyncMapMethods
from torchserve_models.client.call_types import Call, Operation, Pause, RestCall
from torchserve_models.client.concurrency import AdaptiveConcurrencyLimit
from torchserve_models.client.endpoints import Endpoints, choose_endpoints
from torchserve_models.client.errors import TorchServeError
from torchserve_models.client.grpc_transport import AsyncGrpcTransport
from torchserve_models.client.inputs import Image, check_headers
from torchserve_models.client.operations import Operations
from torchserve_models.client.rest_transport import AsyncRestTransport
from torchserve_models.client.results import Inference, Label, Scalar, Summary, Tensor
from torchserve_models.client.retry import OperationContext, RetryBudget, RetryState, check_timeout
from torchserve_models.client.settings import MAX_CONCURRENCY, MAX_MESSAGE_BYTES, Protocol, Settings

T = TypeVar("T")


class AsyncClient(AsyncHealthMethods, AsyncManagementMethods, AsyncMapMethods):
    """Client of one server for asyncio. Use it in an `async with`, within one event loop, or await `close`.

    The methods, their arguments, results and errors are those of `Client`.

    Attributes:
        settings: The settings of the client.

    Example:
        async with AsyncClient("http://127.0.0.1:8080") as client:
            for summary in await client.summarize("t5-small", ["First text.", "Second text."]):
                print(summary.text)
    """

    def __init__(
        self,
        host: str | None = None,
        *,
        protocol: Protocol = "rest",
        endpoints: Endpoints | None = None,
        timeout: float = 120.0,
        connect_timeout: float = 5.0,
        retries: int | None = None,
        max_concurrency: int | None = MAX_CONCURRENCY,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        ca_file: str | Path | None = None,
        send_deadline: bool = True,
        max_connections: int | None = None,
        keepalive: float = 310.0,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Create a client. See `Client.__init__`."""
        self.settings = Settings(
            endpoints=choose_endpoints(host, endpoints),
            protocol=protocol,
            timeout=timeout,
            connect_timeout=connect_timeout,
            retries=retries,
            max_concurrency=max_concurrency,
            max_message_bytes=max_message_bytes,
            ca_file=ca_file,
            send_deadline=send_deadline,
            max_connections=max_connections,
            keepalive=keepalive,
            api_key=api_key,
        )
        self._budget = RetryBudget()
        self._concurrency_limit = AdaptiveConcurrencyLimit(self.settings)
        self._operations = Operations(self.settings)
        self._rest_transport = AsyncRestTransport(self.settings, transport)
        self._grpc_transport = AsyncGrpcTransport(self.settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. See `Client.close`."""
        await self._rest_transport.close()
        await self._grpc_transport.close()

    async def classify(
        self,
        model: str,
        image: Image,
        top_k: int | None = None,
        version: str | None = None,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: Scalar | None,
    ) -> list[Label]:
        """Return the labels of an image, the most probable first. See `Client.classify`."""

        def operation() -> Operation[list[Label]]:
            return self._operations.classify(model, image, top_k, version, parameters)

        return await self._predict(operation, timeout, headers)

    async def summarize(
        self,
        model: str,
        text: str | Sequence[str],
        version: str | None = None,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: Scalar | None,
    ) -> list[Summary]:
        """Return a summary of each text, in order. See `Client.summarize`."""

        def operation() -> Operation[list[Summary]]:
            return self._operations.summarize(model, text, version, parameters)

        return await self._predict(operation, timeout, headers)

    async def infer(
        self,
        model: str,
        inputs: Sequence[Tensor],
        parameters: Mapping[str, Scalar | None] | None = None,
        version: str | None = None,
        id: str = "",
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Inference:
        """Run an inference of the Open Inference Protocol with your own tensors. See `Client.infer`."""

        def operation() -> Operation[Inference]:
            return self._operations.infer(model, inputs, parameters, version, id)

        return await self._predict(operation, timeout, headers)

    async def _predict(
        self,
        build: Callable[[], Operation[T]],
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> T:
        """Wait for a slot, then build and run the operation. A waiting operation holds no input in memory."""
        deadline, checked = check_timeout(timeout), check_headers(headers)
        async with self._concurrency_limit.hold_async(deadline):
            context = OperationContext(
                self.settings, self._budget, deadline, checked, self._concurrency_limit
            )
            return await self._execute(build(), context)

    async def _run(self, operation: Operation[T], timeout: float | None = None) -> T:
        return await self._execute(
            operation, OperationContext(self.settings, self._budget, check_timeout(timeout))
        )

    async def _execute(self, operation: Operation[T], context: OperationContext) -> T:
        if not isinstance(operation, Generator):
            answer: T = await self._send(operation, context)
            return answer
        try:
            call = next(operation)
            while True:
                try:
                    value = await self._send(call, context)
                except TorchServeError as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(value)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _send(self, call: Call[Any] | Pause, context: OperationContext) -> Any:
        if isinstance(call, Pause):
            return await asyncio.sleep(min(call.seconds, context.deadline.left()))
        if context.headers:
            call = replace(call, headers={**call.headers, **context.headers})
        retry_state = RetryState(call, context)
        while True:
            retry_state.begin()
            try:
                if isinstance(call, RestCall):
                    answer = await self._rest_transport.send(call, context.deadline)
                else:
                    answer = await self._grpc_transport.send(call, context.deadline)
            except TorchServeError as error:
                pause = retry_state.pause_after(error)
            else:
                retry_state.on_success()
                return answer
            await asyncio.sleep(pause)
