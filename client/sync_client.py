"""The sync client. Every method says what it does here; the async client has the same ones."""

import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from client.calls import Call, Operation, Pause, RestCall
from client.errors import ServeError
from client.grpc_transport import GrpcTransport
from client.inputs import Image
from client.operations import Operations
from client.rest_transport import RestTransport
from client.results import (
    Inference,
    Label,
    Metrics,
    Model,
    ModelEntry,
    ModelMetadata,
    Scalar,
    Summary,
    Tensor,
)
from client.retry import Attempts, Deadline
from client.settings import MAX_MESSAGE_BYTES, Endpoints, Protocol, Settings

T = TypeVar("T")


class Client:
    """A client of one server, for any number of threads. Use it in a `with`, or call `close`.

    `protocol`: how predictions travel, "rest", "grpc", "open-inference" or "open-inference-grpc"; management goes
    over gRPC with the gRPC ones and over REST with the others. `endpoints` where the addresses are not TorchServe's
    default ports on one host. Every method raises ServeError (client.errors), and retries as retry.py says.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        protocol: Protocol = "rest",
        endpoints: Endpoints | None = None,
        timeout: float = 120.0,
        connect_timeout: float = 5.0,
        retries: int = 3,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        ca_file: str | Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`transport` replaces httpx's, for example in a test. The other arguments: see settings.Settings."""
        self.settings = Settings(
            endpoints or Endpoints.at(host),
            protocol,
            timeout,
            connect_timeout,
            retries,
            max_message_bytes,
            ca_file,
        )
        self._operations = Operations(protocol)
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
        **parameters: Scalar | None,
    ) -> list[Label]:
        """The labels of a picture (a file's bytes, or its path), the most probable first."""
        return self._run(self._operations.classify(model, image, top_k, version, parameters))

    def summarize(
        self, model: str, text: str | Sequence[str], version: str | None = None, **parameters: Scalar | None
    ) -> list[Summary]:
        """A summary of each text, in order. Parameters: min_length, max_length, num_beams, truncation and so on."""
        return self._run(self._operations.summarize(model, text, version, parameters))

    def infer(
        self,
        model: str,
        inputs: Sequence[Tensor],
        parameters: Mapping[str, Scalar | None] | None = None,
        version: str | None = None,
        id: str = "",
    ) -> Inference:
        """An inference of the Open Inference Protocol with tensors of your own; over REST bytes go as base64."""
        return self._run(self._operations.infer(model, inputs, parameters, version, id))

    def live(self) -> bool:
        """Whether the front end answers, and calls itself healthy. It says so while models load: see `ready`."""
        return self._run(self._operations.live())

    def ready(self, model: str | None = None, version: str | None = None) -> bool:
        """Whether every worker of the model has loaded it; without a model: of all of them, and there is one."""
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

    def list_models(self) -> list[ModelEntry]:
        """Every registered model."""
        return self._run(self._operations.list_models())

    def describe(self, model: str, version: str | None = None, customized: bool = False) -> Model:
        """One version, the default one if none is named. `customized` asks a worker for its metadata as well."""
        return self._run(self._operations.describe(model, version, customized))

    def describe_versions(self, model: str) -> list[Model]:
        """Every version of a model."""
        return self._run(self._operations.describe_versions(model))

    def scale(
        self,
        model: str,
        min_workers: int,
        max_workers: int | None = None,
        version: str | None = None,
        synchronous: bool = True,
    ) -> str:
        """Changes the number of workers; `synchronous` waits until they are ready. Answers TorchServe's sentence."""
        return self._run(self._operations.scale(model, min_workers, max_workers, version, synchronous))

    def register(
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
    ) -> str:
        """Registers an archive by its name in the model store. What its model-config.yaml says wins.

        `synchronous` waits until its workers are ready. Answers TorchServe's sentence.
        """
        fields = {
            "model_name": model_name,
            "initial_workers": initial_workers,
            "batch_size": batch_size,
            "max_batch_delay": max_batch_delay,
            "response_timeout": response_timeout,
            "startup_timeout": startup_timeout,
            "handler": handler,
            "synchronous": synchronous,
        }
        return self._run(self._operations.register(archive, fields))

    def set_default(self, model: str, version: str) -> str:
        """Makes that version the one that answers where none is named."""
        return self._run(self._operations.set_default(model, version))

    def unregister(self, model: str, version: str | None = None) -> str:
        """Removes a version; without one, the default version, which TorchServe allows only if it is the last."""
        return self._run(self._operations.unregister(model, version))

    def metrics(self, names: Sequence[str] = ()) -> Metrics:
        """The metrics, or only those of the given names (counters with their `_total`)."""
        return self._run(self._operations.metrics(names))

    def _run(self, operation: Operation[T]) -> T:
        deadline = Deadline(self.settings.timeout)
        if not isinstance(operation, Generator):
            answer: T = self._send(operation, deadline)
            return answer
        try:
            call = next(operation)
            while True:
                try:
                    value = self._send(call, deadline)
                except ServeError as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(value)
        except StopIteration as done:
            result: T = done.value
            return result

    def _send(self, call: Call[Any] | Pause, deadline: Deadline) -> Any:
        if isinstance(call, Pause):
            return time.sleep(min(call.seconds, deadline.left()))
        attempts = Attempts(call, self.settings, deadline)
        while True:
            try:
                if isinstance(call, RestCall):
                    return self._rest.send(call, deadline)
                return self._grpc.send(call, deadline)
            except ServeError as error:
                pause = attempts.pause_after(error)
            time.sleep(pause)
