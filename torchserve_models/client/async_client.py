"""The async client: the sync client's methods, awaited. What they do is said there."""

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from torchserve_models.client.calls import Call, Operation, Pause, RestCall
from torchserve_models.client.concurrency import Slots
from torchserve_models.client.endpoints import Endpoints, choose_endpoints
from torchserve_models.client.errors import TorchServeError
from torchserve_models.client.grpc_transport import AsyncGrpcTransport
from torchserve_models.client.inputs import Image, check_headers
from torchserve_models.client.mapping import AsyncMapMethods
from torchserve_models.client.operations import Operations
from torchserve_models.client.rest_transport import AsyncRestTransport
from torchserve_models.client.results import (
    Inference,
    Label,
    Metrics,
    Model,
    ModelEntry,
    ModelMetadata,
    Readiness,
    Scalar,
    Summary,
    Tensor,
)
from torchserve_models.client.retry import Attempts, Execution, RetryBudget, check_timeout
from torchserve_models.client.settings import MAX_CONCURRENCY, MAX_MESSAGE_BYTES, Protocol, Settings

T = TypeVar("T")


class AsyncClient(AsyncMapMethods):
    """`Client` for asyncio: use it in an `async with`, within one event loop, or await `close`."""

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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
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
        )
        self._budget = RetryBudget()
        self._slots = Slots(self.settings)
        self._operations = Operations(self.settings)
        self._rest = AsyncRestTransport(self.settings, transport)
        self._grpc = AsyncGrpcTransport(self.settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._rest.close()
        await self._grpc.close()

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
        def operation() -> Operation[Inference]:
            return self._operations.infer(model, inputs, parameters, version, id)

        return await self._predict(operation, timeout, headers)

    async def live(self) -> bool:
        return await self._run(self._operations.live())

    async def ready(self, model: str | None = None, version: str | None = None) -> Readiness:
        return await self._run(self._operations.ready(model, version))

    async def server_live(self) -> bool:
        return await self._run(self._operations.server_live())

    async def server_ready(self) -> bool:
        return await self._run(self._operations.server_ready())

    async def model_ready(self, model: str, version: str | None = None) -> bool:
        return await self._run(self._operations.model_ready(model, version))

    async def model_metadata(self, model: str, version: str | None = None) -> ModelMetadata:
        return await self._run(self._operations.model_metadata(model, version))

    async def list_models(self) -> list[ModelEntry]:
        return await self._run(self._operations.list_models())

    async def describe(self, model: str, version: str | None = None, customized: bool = False) -> Model:
        return await self._run(self._operations.describe(model, version, customized))

    async def describe_versions(self, model: str) -> list[Model]:
        return await self._run(self._operations.describe_versions(model))

    async def scale(
        self,
        model: str,
        min_workers: int,
        max_workers: int | None = None,
        version: str | None = None,
        synchronous: bool = True,
        *,
        drain_timeout: float | None = None,
        force: bool = False,
        timeout: float | None = None,
    ) -> str:
        workers = (min_workers, max_workers)
        operation = self._operations.scale(model, workers, version, synchronous, drain_timeout, force)
        return await self._run(operation, timeout)

    async def register(
        self,
        archive: str,
        *,
        model_name: str | None = None,
        initial_workers: int | None = None,
        batch_size: int | None = None,
        max_batch_delay: int | None = None,
        response_timeout: int | None = None,
        startup_timeout: int | None = None,
        handler: str | None = None,
        synchronous: bool = True,
        timeout: float | None = None,
    ) -> str:
        fields = {
            "model_name": model_name,
            "initial_workers": initial_workers,
            "batch_size": batch_size,
            "max_batch_delay": max_batch_delay,
            "response_timeout": response_timeout,
            "startup_timeout": startup_timeout,
            "handler": handler,
        }
        return await self._run(self._operations.register(archive, fields, synchronous), timeout)

    async def set_default(self, model: str, version: str, *, force: bool = False) -> str:
        return await self._run(self._operations.set_default(model, version, force))

    async def unregister(
        self,
        model: str,
        version: str | None = None,
        *,
        drain_timeout: float | None = None,
        force: bool = False,
        timeout: float | None = None,
    ) -> str:
        operation = self._operations.unregister(model, version, drain_timeout, force)
        return await self._run(operation, timeout)

    async def replace_model(
        self,
        model: str,
        archive: str,
        *,
        workers: int | None = None,
        drain_timeout: float | None = None,
        timeout: float | None = None,
    ) -> str:
        operation = self._operations.replace_model(model, archive, workers, drain_timeout)
        return await self._run(operation, timeout)

    async def metrics(self, names: Sequence[str] = ()) -> Metrics:
        return await self._run(self._operations.metrics(names))

    async def _predict(
        self,
        build: Callable[[], Operation[T]],
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> T:
        """Build the operation and run it while a slot is held: what waits for one takes no memory."""
        deadline, checked = check_timeout(timeout), check_headers(headers)
        async with self._slots.hold_async(deadline):
            execution = Execution(self.settings, self._budget, deadline, checked, self._slots)
            return await self._execute(build(), execution)

    async def _run(self, operation: Operation[T], timeout: float | None = None) -> T:
        return await self._execute(operation, Execution(self.settings, self._budget, check_timeout(timeout)))

    async def _execute(self, operation: Operation[T], execution: Execution) -> T:
        if not isinstance(operation, Generator):
            answer: T = await self._send(operation, execution)
            return answer
        try:
            call = next(operation)
            while True:
                try:
                    value = await self._send(call, execution)
                except TorchServeError as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(value)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _send(self, call: Call[Any] | Pause, execution: Execution) -> Any:
        if isinstance(call, Pause):
            return await asyncio.sleep(min(call.seconds, execution.deadline.left()))
        if execution.headers:
            call = replace(call, headers={**call.headers, **execution.headers})
        attempts = Attempts(call, execution)
        while True:
            attempts.begin()
            try:
                if isinstance(call, RestCall):
                    answer = await self._rest.send(call, execution.deadline)
                else:
                    answer = await self._grpc.send(call, execution.deadline)
            except TorchServeError as error:
                pause = attempts.pause_after(error)
            else:
                attempts.answered()
                return answer
            await asyncio.sleep(pause)
