"""The sync client. Every method says what it does here; the async client has the same ones."""

import time
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
from torchserve_models.client.grpc_transport import GrpcTransport
from torchserve_models.client.inputs import Image, check_headers
from torchserve_models.client.mapping import MapMethods
from torchserve_models.client.operations import Operations
from torchserve_models.client.rest_transport import RestTransport
from torchserve_models.client.results import (
    Inference,
    Label,
    Metrics,
    ModelMetadata,
    Readiness,
    Scalar,
    Summary,
    Tensor,
)
from torchserve_models.client.retry import Attempts, Execution, RetryBudget, check_timeout
from torchserve_models.client.settings import MAX_CONCURRENCY, MAX_MESSAGE_BYTES, Protocol, Settings
from torchserve_models.client.sync_management import ManagementMethods

T = TypeVar("T")


class Client(ManagementMethods, MapMethods):
    """A client of one server, for any number of threads. Use it in a `with`, or call `close`.

    `host`: a host with TorchServe's ports (127.0.0.1), or one URL: `http://host:8080` for TorchServe, any other URL
    for a gateway (Endpoints.of). `endpoints` instead of it where the addresses are others. `protocol`: how
    predictions travel, "rest", "grpc", "open-inference" or "open-inference-grpc"; management goes over gRPC with the
    gRPC ones and over REST with the others. Every method raises TorchServeError (client.errors), and retries as
    retry.py describes.
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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises ValueError. `transport` replaces httpx's, for example in a test. The others: settings.Settings."""
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
        self._rest = RestTransport(self.settings, transport)
        self._grpc = GrpcTransport(self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes every connection."""
        self._rest.close()
        self._grpc.close()

    def classify(
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
        """Return the labels of an image, the most probable first.

        Args:
            model: The model's name.
            image: The bytes of an image file, or its path.
            top_k: How many labels; the model's own number by default.
            version: The model's version; its default version if None.
            timeout: Seconds for this call, retries and the wait for a slot included; the client's timeout, without
                the wait, if None.
            headers: Further headers, such as `X-Request-Id`; metadata over gRPC.
            parameters: Further parameters of the model.

        Raises:
            TorchServeError: See client.errors.
        """

        def operation() -> Operation[list[Label]]:
            return self._operations.classify(model, image, top_k, version, parameters)

        return self._predict(operation, timeout, headers)

    def summarize(
        self,
        model: str,
        text: str | Sequence[str],
        version: str | None = None,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: Scalar | None,
    ) -> list[Summary]:
        """Return a summary of each text, in order.

        Args:
            model: The model's name.
            text: One text or several.
            version: The model's version; its default version if None.
            timeout: Seconds for this call, retries and the wait for a slot included; the client's timeout, without
                the wait, if None.
            headers: Further headers, such as `X-Request-Id`; metadata over gRPC.
            parameters: min_length, max_length, num_beams, truncation and so on.

        Raises:
            TorchServeError: See client.errors.
        """

        def operation() -> Operation[list[Summary]]:
            return self._operations.summarize(model, text, version, parameters)

        return self._predict(operation, timeout, headers)

    def infer(
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
        """Run an inference of the Open Inference Protocol with your own tensors; over REST bytes go as base64.

        Args:
            model: The model's name.
            inputs: The input tensors.
            parameters: Parameters of the request.
            version: The model's version, over gRPC only; its default version if None.
            id: An id that the answer repeats.
            timeout: Seconds for this call, retries and the wait for a slot included; the client's timeout, without
                the wait, if None.
            headers: Further headers, such as `X-Request-Id`; metadata over gRPC.

        Raises:
            TorchServeError: See client.errors.
        """

        def operation() -> Operation[Inference]:
            return self._operations.infer(model, inputs, parameters, version, id)

        return self._predict(operation, timeout, headers)

    def live(self) -> bool:
        """Whether the front end answers, and calls itself healthy. It says so while models load: see `ready`."""
        return self._run(self._operations.live())

    def ready(self, model: str | None = None, version: str | None = None) -> Readiness:
        """Whether every worker of the model has loaded it; without a model: of all of them, and there is one.

        The result is true or false as a condition, and has the reason. A gateway answers it as its `/readyz` does.

        Raises:
            ModelNotFound: There is no such model or version.
        """
        return self._run(self._operations.ready(model, version))

    def server_live(self) -> bool:
        """The Open Inference Protocol's; TorchServe answers true as soon as it answers."""
        return self._run(self._operations.server_live())

    def server_ready(self) -> bool:
        """The Open Inference Protocol's; TorchServe answers true as soon as it answers."""
        return self._run(self._operations.server_ready())

    def model_ready(self, model: str, version: str | None = None) -> bool:
        """The Open Inference Protocol's; always over gRPC, as TorchServe has it nowhere else."""
        return self._run(self._operations.model_ready(model, version))

    def model_metadata(self, model: str, version: str | None = None) -> ModelMetadata:
        """The Open Inference Protocol's; always over gRPC, as TorchServe has it nowhere else."""
        return self._run(self._operations.model_metadata(model, version))

    def metrics(self, names: Sequence[str] = ()) -> Metrics:
        """The metrics, or only those of the given names (counters with their `_total`)."""
        return self._run(self._operations.metrics(names))

    def _predict(
        self,
        build: Callable[[], Operation[T]],
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> T:
        """Build the operation and run it while a slot is held: what waits for one takes no memory."""
        deadline, checked = check_timeout(timeout), check_headers(headers)
        with self._slots.hold(deadline):
            execution = Execution(self.settings, self._budget, deadline, checked, self._slots)
            return self._execute(build(), execution)

    def _run(self, operation: Operation[T], timeout: float | None = None) -> T:
        return self._execute(operation, Execution(self.settings, self._budget, check_timeout(timeout)))

    def _execute(self, operation: Operation[T], execution: Execution) -> T:
        if not isinstance(operation, Generator):
            answer: T = self._send(operation, execution)
            return answer
        try:
            call = next(operation)
            while True:
                try:
                    value = self._send(call, execution)
                except TorchServeError as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(value)
        except StopIteration as done:
            result: T = done.value
            return result

    def _send(self, call: Call[Any] | Pause, execution: Execution) -> Any:
        if isinstance(call, Pause):
            return time.sleep(min(call.seconds, execution.deadline.left()))
        if execution.headers:
            call = replace(call, headers={**call.headers, **execution.headers})
        attempts = Attempts(call, execution)
        while True:
            attempts.begin()
            try:
                if isinstance(call, RestCall):
                    answer = self._rest.send(call, execution.deadline)
                else:
                    answer = self._grpc.send(call, execution.deadline)
            except TorchServeError as error:
                pause = attempts.pause_after(error)
            else:
                attempts.answered()
                return answer
            time.sleep(pause)
