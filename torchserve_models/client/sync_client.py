"""The sync client. The async client has the same methods, which are documented here."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from torchserve_models.client.bulk_map import MapMethods
from torchserve_models.client.call_types import Call, Operation, Pause, RestCall
from torchserve_models.client.concurrency import AdaptiveConcurrencyLimit
from torchserve_models.client.endpoints import Endpoints, choose_endpoints
from torchserve_models.client.errors import TorchServeError
from torchserve_models.client.grpc_transport import GrpcTransport
from torchserve_models.client.inputs import Image, check_headers
from torchserve_models.client.operations import Operations
from torchserve_models.client.rest_transport import RestTransport
from torchserve_models.client.results import Inference, Label, Scalar, Summary, Tensor
from torchserve_models.client.retry import OperationContext, RetryBudget, RetryState, check_timeout
from torchserve_models.client.settings import MAX_CONCURRENCY, MAX_MESSAGE_BYTES, Protocol, Settings
from torchserve_models.client.sync_health import HealthMethods
from torchserve_models.client.sync_management import ManagementMethods

T = TypeVar("T")


class Client(HealthMethods, ManagementMethods, MapMethods):
    """Client of one server, for any number of threads. Use it in a `with`, or call `close`.

    Every method raises a TorchServeError (client/errors.py) if it fails, after the retries that client/retry.py
    describes.

    Attributes:
        settings: The settings of the client.

    Example:
        with Client("http://127.0.0.1:8080") as client:
            for label in client.classify("resnet-50", Path("photo.jpg"), top_k=3):
                print(label.label, label.score)
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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Create a client; connections are opened when they are first needed.

        Args:
            host: A host with TorchServe's default ports, or one URL: `http://host:8080` for TorchServe, any other URL
                for a gateway. This machine if neither it nor `endpoints` is given.
            protocol: Protocol of predictions: "rest", "grpc", "open-inference" or "open-inference-grpc". Management
                uses gRPC with the two gRPC protocols and REST with the others.
            endpoints: Addresses that `host` cannot express.
            timeout: Seconds for an operation from its first attempt, including retries and pauses.
            connect_timeout: Seconds for one connection.
            retries: Maximum number of retries of an operation that cannot have an effect twice. None: after
                Overloaded until the timeout, after other errors three times.
            max_concurrency: Maximum number of concurrent predictions; further predictions wait. None for no limit.
            max_message_bytes: Maximum size of gRPC messages in both directions; should equal the server's limit.
            ca_file: PEM file of certificates that are trusted over TLS instead of the system's.
            send_deadline: Send the remaining time with predictions. Disable it for custom handlers that accept no
                further keys in TorchServe's gRPC input map.
            max_connections: Maximum number of REST connections to one address; further requests wait. None for no
                limit.
            keepalive: Seconds between HTTP/2 pings on a gRPC connection with calls in progress, at least 1.
                TorchServe closes connections that ping more often than every 5 minutes; nginx does not.
            api_key: API key of a gateway that requires one, sent with every request. Use TLS on a network.
            transport: Replacement for httpx's transport, for example in a test.

        Raises:
            ValueError: A value is out of range, or both `host` and `endpoints` are given.
        """
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
        self._rest_transport = RestTransport(self.settings, transport)
        self._grpc_transport = GrpcTransport(self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._rest_transport.close()
        self._grpc_transport.close()

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
            top_k: Number of labels; the model's default if None.
            version: The model's version; its default version if None.
            timeout: Seconds for this call, retries and the wait for a slot included; the client's timeout, without
                the wait, if None.
            headers: Further headers, such as `X-Request-Id`; metadata over gRPC.
            parameters: Further parameters of the model.

        Returns:
            The labels, at most `top_k`.

        Raises:
            InvalidRequest: `image` is neither bytes nor a path, or a header cannot be sent.
            InvalidImage: The server cannot decode the image.
            InvalidParameter: A parameter is unknown, of the wrong type or out of range.
            TorchServeError: Another error of client/errors.py.
            OSError: The file cannot be read.
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
            parameters: Generation parameters, such as min_length, max_length, num_beams, truncation.

        Returns:
            One summary for each text.

        Raises:
            InvalidText: A text is empty or cannot be written as UTF-8.
            InvalidParameter: A parameter is unknown, of the wrong type or out of range.
            TorchServeError: Another error of client/errors.py.
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
        """Run an inference of the Open Inference Protocol with your own tensors.

        Args:
            model: The model's name.
            inputs: The input tensors. Bytes are sent as base64 over REST.
            parameters: Parameters of the request.
            version: The model's version, over gRPC only; its default version if None.
            id: An id that the answer repeats.
            timeout: Seconds for this call, retries and the wait for a slot included; the client's timeout, without
                the wait, if None.
            headers: Further headers, such as `X-Request-Id`; metadata over gRPC.

        Returns:
            The output tensors, with model, version and id.

        Raises:
            InvalidRequest: TorchServe does not support such a tensor, or a version over REST.
            TorchServeError: Another error of client/errors.py.
        """

        def operation() -> Operation[Inference]:
            return self._operations.infer(model, inputs, parameters, version, id)

        return self._predict(operation, timeout, headers)

    def _predict(
        self,
        build: Callable[[], Operation[T]],
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> T:
        """Wait for a slot, then build and run the operation. A waiting operation holds no input in memory."""
        deadline, checked = check_timeout(timeout), check_headers(headers)
        with self._concurrency_limit.hold(deadline):
            context = OperationContext(
                self.settings, self._budget, deadline, checked, self._concurrency_limit
            )
            return self._execute(build(), context)

    def _run(self, operation: Operation[T], timeout: float | None = None) -> T:
        return self._execute(operation, OperationContext(self.settings, self._budget, check_timeout(timeout)))

    def _execute(self, operation: Operation[T], context: OperationContext) -> T:
        if not isinstance(operation, Generator):
            answer: T = self._send(operation, context)
            return answer
        try:
            call = next(operation)
            while True:
                try:
                    value = self._send(call, context)
                except TorchServeError as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(value)
        except StopIteration as done:
            result: T = done.value
            return result

    def _send(self, call: Call[Any] | Pause, context: OperationContext) -> Any:
        if isinstance(call, Pause):
            return time.sleep(min(call.seconds, context.deadline.left()))
        if context.headers:
            call = replace(call, headers={**call.headers, **context.headers})
        retry_state = RetryState(call, context)
        while True:
            retry_state.begin()
            try:
                if isinstance(call, RestCall):
                    answer = self._rest_transport.send(call, context.deadline)
                else:
                    answer = self._grpc_transport.send(call, context.deadline)
            except TorchServeError as error:
                pause = retry_state.pause_after(error)
            else:
                retry_state.on_success()
                return answer
            time.sleep(pause)
