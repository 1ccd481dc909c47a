"""The base of every handler: cuts a batch into items, keeps their errors apart, and joins the answers."""

import json
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from handlers.core import metrics as names
from handlers.core.config import HandlerConfig
from handlers.core.device import AMX, Device
from handlers.core.errors import InternalError, InvalidRequest, OutOfMemory, Overloaded, ServingError
from handlers.core.faults import is_device_lost, is_out_of_memory
from handlers.core.metrics import Metrics
from handlers.core.parameters import Parameter, parse_parameters
from handlers.core.reply import Body, Reply, to_body, to_json
from handlers.core.request import Door
from handlers.core.tensor import Payload, Tensor, TensorSpec

Item = TypeVar("Item")
Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)


@dataclass
class Exchange(Generic[Item]):
    """One request of a batch on its way through: its items, or what went wrong.

    `seconds` is its share of the time for decoding, which runs from the first input that is begun until `end`.
    """

    reply: Reply
    is_grpc: bool
    payloads: Sequence[Payload] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    end: float | None = None
    items: Sequence[Item] = ()
    error: ServingError | None = None


class Handler(ABC, Generic[Item, Answer]):
    """Four verbs make a task: load, decode, predict, encode.

    TorchServe calls `initialize` once and `handle` for each batch.
    """

    config_type: ClassVar[type[HandlerConfig]] = HandlerConfig
    payload_fields: ClassVar[tuple[str, ...]] = ("data",)
    """Names under which a form or a tensor carries the input; the first is the documented one of the protocol."""

    input_tensor: ClassVar[TensorSpec | None] = None
    """What the metadata say of the input; None is BYTES, under the first of `payload_fields`."""
    output_tensors: ClassVar[tuple[TensorSpec, ...]] = ()
    """What the metadata say of `outputs`."""
    answer_schema: ClassVar[Mapping[str, Any]] = {}
    """JSON Schema of what `encode` gives, for the API's documentation."""
    media_type: ClassVar[str] = "application/octet-stream"
    """Of an input that is sent as it is; what is no text goes into JSON as base64."""
    example: ClassVar[str] = ""
    """An input as JSON carries it, for the API's documentation."""

    parallel_decode: ClassVar[bool] = False
    """Whether `decode` may run in several threads at once."""
    bf16_flags: ClassVar[Set[str]] = AMX
    """A CPU with one of these flags computes the task's networks faster in bf16 than in fp32."""

    @abstractmethod
    def load(self, folder: Path, config: Any, device: Device) -> None:
        """Load the model from `folder`, which is in the hub's layout."""

    @abstractmethod
    def parameters(self) -> Sequence[Parameter]:
        """What a request may set, with the server's limits. Asked once, after `load`."""

    @abstractmethod
    def decode(self, payload: Payload, parameters: dict[str, Any]) -> Item:
        """One input as an item of a batch. Raises ServingError, for this request only."""

    def batches(self, items: Sequence[Item]) -> list[list[int]]:
        """Indices of the items that go through the model together; every item is in exactly one batch."""
        return [list(range(len(items)))]

    @abstractmethod
    def predict(self, items: Sequence[Item]) -> Sequence[Answer | ServingError]:
        """An answer for each item of one batch, in order."""

    @abstractmethod
    def encode(self, answer: Answer) -> Any:
        """The native JSON value of one answer."""

    @abstractmethod
    def outputs(self, answers: Sequence[Answer]) -> list[Tensor]:
        """The same answers as Open Inference Protocol tensors."""

    @abstractmethod
    def warm_up(self) -> None:
        """Run the model once in each way it will run, so that no request pays for the first time."""

    def generated_tokens(self, answer: Answer) -> int:  # noqa: ARG002
        """New tokens in `answer`, for the counter."""
        return 0

    def describe(self) -> dict[str, Any]:
        """What the describe API says of this task."""
        return {}

    def initialize(self, context: Any) -> None:
        """Load from the archive's folder and warm up. Raises ConfigurationError and whatever loading raises."""
        properties = context.system_properties
        folder = Path(properties["model_dir"])
        settings = context.model_yaml_config or {}
        config = self.config_type.from_mapping(settings.get("handler"))
        workers = settings.get("minWorkers") or 1
        self._device = Device.choose(properties.get("gpu_id"), config, workers, self.bf16_flags)
        self._device.apply()
        self._pool = self._device.pool() if self.parallel_decode else None
        self._batch_size = int(properties.get("batch_size") or 1)
        self._max_items = config.max_items
        # Whoever outlives TorchServe's time for a batch is killed, and all its requests with it. A quarter of it is
        # for decoding, in equal shares; no run of the model begins after half of it, and the last has the other half.
        self._patience = float(settings.get("responseTimeout") or 120)
        self._model_name = context.model_name
        self._version = str((context.manifest or {}).get("model", {}).get("modelVersion", ""))
        provenance = folder / "provenance.json"
        self._provenance = json.loads(provenance.read_text()) if provenance.exists() else {}
        self._metrics = Metrics(context.metrics, self._model_name)
        self.load(folder / "model", config, self._device)
        self._allowed = tuple(self.parameters())
        self.warm_up()
        logger.info("%s is loaded: %s", self._model_name, self._short_description())

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """One body for each request of the batch; statuses, content types and headers go through `context`."""
        try:
            return self._handle(data, context)
        finally:
            self._metrics.flush()

    def _handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        headers = [context.get_all_request_header(index) for index in range(len(data))]
        if len(data) == 1 and not data[0] and headers[0].get("describe") == "True":
            return [to_json(self._description())]
        self._deadline = time.monotonic() + self._patience / 2
        share = self._patience / 4 / max(1, len(data))
        self._metrics.add(names.REQUESTS, len(data))
        with self._metrics.seconds(names.DECODE_SECONDS):
            exchanges = [self._open(fields, own, share) for fields, own in zip(data, headers, strict=True)]
            self._decode_all(exchanges)
        answers = self._answer(exchanges)
        with self._metrics.seconds(names.ENCODE_SECONDS):
            return [
                self._close(exchange, own, index, context)
                for index, (exchange, own) in enumerate(zip(exchanges, answers, strict=True))
            ]

    def _open(self, fields: Mapping[str, Any], headers: Mapping[str, Any], seconds: float) -> Exchange[Item]:
        """What one request asks for; nothing of it is decoded yet."""
        end = time.monotonic() + seconds
        door = Door(fields, headers, self._model_name, self._version, self.payload_fields, self._max_items)
        try:
            if headers.get("explain") == "True":
                raise InvalidRequest("explanations are not offered; use /predictions")
            request = door.read()
            parameters = parse_parameters(request.parameters, self._allowed)
        except Exception as error:
            return Exchange(door.reply, door.is_grpc, error=as_serving_error(error))
        left = end - time.monotonic()
        return Exchange(request.reply, door.is_grpc, request.payloads, parameters, left)

    def _decode_all(self, exchanges: Sequence[Exchange[Item]]) -> None:
        """Fill in the items of each exchange, or its first error; inputs of all requests share the pool's threads."""
        inputs = [(exchange, place) for exchange in exchanges for place in range(len(exchange.payloads))]
        decoded = iter(self._spread(self._decode, inputs))
        for exchange in exchanges:
            items = [next(decoded) for _ in exchange.payloads]
            exchange.error = next((item for item in items if isinstance(item, ServingError)), exchange.error)
            exchange.items = () if exchange.error else items

    def _spread(self, work: Callable[[Any], Any], inputs: Sequence[Any]) -> Iterable[Any]:
        """Results in order. A single input is not worth a thread."""
        return self._pool.map(work, inputs) if self._pool and len(inputs) > 1 else map(work, inputs)

    def _decode(self, task: tuple[Exchange[Item], int]) -> Item | ServingError:
        """One input, or its error. None is begun after its request's share of time: its neighbours would lack it."""
        exchange, place = task
        if exchange.error:  # one input of several has failed, and so has the request
            return exchange.error
        exchange.end = exchange.end or time.monotonic() + exchange.seconds
        try:
            check_time(exchange.end)
            return self.decode(exchange.payloads[place], exchange.parameters)
        except Exception as failure:
            error = as_serving_error(failure)
            if isinstance(failure, ServingError) and len(exchange.payloads) > 1:
                error = type(error)(f"inputs[{place}]: {error.message}")
            exchange.error = error
            return error

    def _answer(self, exchanges: Sequence[Exchange[Item]]) -> list[list[Answer | ServingError]]:
        """The answers of each exchange; items of all requests share the model's batches."""
        items = [item for exchange in exchanges for item in exchange.items]
        answers: dict[int, Answer | ServingError] = {}
        if items:
            with self._metrics.seconds(names.INFERENCE_SECONDS):
                for indices in self.batches(items):
                    self._metrics.add(names.BATCH_SIZE, len(indices))
                    answers.update(zip(indices, self._predict([items[i] for i in indices]), strict=True))
        in_order = (answers[index] for index in range(len(items)))
        return [[next(in_order) for _ in exchange.items] for exchange in exchanges]

    def _predict(self, items: Sequence[Item]) -> list[Answer | ServingError]:
        """A batch that fails is tried again item by item, so that only the item at fault fails."""
        try:
            check_time(self._deadline)
            return list(self.predict(items))
        except Exception as error:
            if is_device_lost(error):
                end_process(error)
            if len(items) == 1 or isinstance(error, Overloaded):
                return [as_serving_error(error)] * len(items)
            logger.warning(
                "a batch of %d failed (%s); trying its items alone", len(items), type(error).__name__
            )
        return [self._predict([item])[0] for item in items]

    def _close(
        self, exchange: Exchange[Item], answers: list[Answer | ServingError], index: int, context: Any
    ) -> bytes:
        error = exchange.error or next(
            (answer for answer in answers if isinstance(answer, ServingError)), None
        )
        good = [answer for answer in answers if not isinstance(answer, ServingError)]
        body = Body(b"", "application/json")
        if error is None:
            try:
                body = to_body(exchange.reply.answer(self, good))
            except Exception as failure:
                error = as_serving_error(failure)
        self._metrics.add(names.GENERATED_TOKENS, sum(map(self.generated_tokens, good)))
        if exchange.is_grpc:
            # Without it a StreamPredictions call, which any client may make, kills the worker.
            context.set_response_header(index, "ts_stream_next", "false")
        if error is not None:
            self._metrics.add(names.FAILED_ITEMS, 1, error.type)
            context.set_response_status(error.code, error.type, index)
            body = to_body(exchange.reply.error(error))
        context.set_response_content_type(index, body.content_type)
        for name, value in body.headers.items():
            context.set_response_header(index, name, value)
        return body.content

    def _short_description(self) -> dict[str, Any]:
        return self._provenance | self._device.describe() | self.describe()

    def _description(self) -> dict[str, Any]:
        field = self.payload_fields[0]
        return self._short_description() | {
            "max_items": self._max_items,
            "fields": list(self.payload_fields),
            "inputs": [(self.input_tensor or TensorSpec(field, "BYTES", (-1,))).as_dict()],
            "outputs": [tensor.as_dict() for tensor in self.output_tensors],
            "parameters": [parameter.as_dict() for parameter in self._allowed],
            "answer": dict(self.answer_schema),
            "media_type": self.media_type,
            "example": self.example,
        }


def check_time(end: float) -> None:
    """Raises Overloaded."""
    if time.monotonic() > end:
        raise Overloaded("the server's time for this batch of requests is over; retry, or ask for less")


def as_serving_error(error: Exception) -> ServingError:
    """The answer for any exception; what is our fault goes to the log and is not told to the client."""
    if isinstance(error, ServingError):
        return error
    if is_out_of_memory(error):
        logger.error("out of memory", exc_info=error)
        return OutOfMemory("there is not enough memory for this input; try a smaller one")
    logger.error("unexpected error", exc_info=error)
    return InternalError("internal error; the worker's log has the details")


def end_process(error: Exception) -> None:
    """So that TorchServe starts a new one: this one would answer with errors for ever."""
    logger.critical("the GPU's context is lost; this worker ends and is replaced", exc_info=error)
    logging.shutdown()
    os._exit(1)
