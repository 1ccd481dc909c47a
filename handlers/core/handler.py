"""The base of every handler: cuts a batch into items, keeps their errors apart, and joins the answers."""

import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from handlers.core import metrics as names
from handlers.core import repeated_fields, request_log
from handlers.core.activity import ActivityWriter
from handlers.core.admission import Admission
from handlers.core.config import HandlerConfig, server_setting
from handlers.core.device import AMX, Device
from handlers.core.edge import EdgeReader
from handlers.core.errors import HandlerError, Overloaded
from handlers.core.faults import as_handler_error, check_time, end_process, is_device_lost
from handlers.core.holding import hold_if_asked
from handlers.core.memory import TRIM_BYTES, release, size_of, trim
from handlers.core.metrics import Metrics
from handlers.core.opening import RequestOpener
from handlers.core.parameters import Parameter
from handlers.core.passed_over import PassedOver
from handlers.core.pending import PendingRequest
from handlers.core.progress import reporting_to
from handlers.core.reply import Body, to_body, to_json
from handlers.core.request_log import logging_for
from handlers.core.tensor import Payload, Tensor, TensorSpec

Item = TypeVar("Item")
Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)


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
    """Of an input that is sent as it is. text/...: bytes are decoded by the charset that a request declares; what is
    no text goes into JSON as base64."""
    example: ClassVar[str] = ""
    """An input as JSON carries it, for the API's documentation."""

    parallel_decode: ClassVar[bool] = False
    """Whether `decode` may run in several threads at once."""
    takes_numbers: ClassVar[bool] = True
    """Whether inputs may be numeric tensors, which as JSON are lists of millions of numbers."""
    bf16_flags: ClassVar[Set[str]] = AMX
    """A CPU with one of these flags computes the task's networks faster in bf16 than in fp32."""

    @abstractmethod
    def load(self, folder: Path, config: Any, device: Device) -> None:
        """Load the model from `folder`, which is in the hub's layout."""

    @abstractmethod
    def parameters(self) -> Sequence[Parameter]:
        """What a request may set, with the server's limits. Asked once, after `load`."""

    def passed_over(self) -> Sequence[PassedOver]:
        """What a request may send besides, as it changes nothing. Asked once, after `load`."""
        return ()

    @abstractmethod
    def decode(self, payload: Payload, parameters: dict[str, Any]) -> Item:
        """One input as an item of a batch. Raises HandlerError, for this request only."""

    def batches(self, items: Sequence[Item]) -> list[list[int]]:
        """Indices of the items that go through the model together; every item is in exactly one batch."""
        return [list(range(len(items)))]

    @abstractmethod
    def predict(self, items: Sequence[Item]) -> Sequence[Answer | HandlerError]:
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
        request_log.install()
        repeated_fields.install()
        properties = context.system_properties
        folder = Path(properties["model_dir"])
        settings = context.model_yaml_config or {}
        config = self.config_type.from_mapping(settings.get("handler"))
        workers = int(server_setting(settings, "minWorkers", 1))
        self._device = Device.choose(properties.get("gpu_id"), config, workers, self.bf16_flags)
        self._device.apply()
        self._pool = self._device.pool() if self.parallel_decode else None
        self._batch_size = int(properties.get("batch_size") or 1)
        self._max_items = config.max_items
        self._response_timeout_s = server_setting(settings, "responseTimeout", 120)
        self._model_name = context.model_name
        self._version = str((context.manifest or {}).get("model", {}).get("modelVersion", ""))
        provenance = folder / "provenance.json"
        self._provenance = json.loads(provenance.read_text()) if provenance.exists() else {}
        self._metrics = Metrics(context.metrics, self._model_name)
        self.load(folder / "model", config, self._device)
        self._allowed = tuple(self.parameters())
        self._admission = Admission(EdgeReader.from_environment(self._model_name), self._batch_size)
        self._opener = RequestOpener(
            self._model_name,
            self._version,
            self.payload_fields,
            self._max_items,
            self.takes_numbers,
            self.media_type.startswith("text/"),
            self._allowed,
            tuple(self.passed_over()),
            self._admission,
            self._metrics,
        )
        self.warm_up()
        # The supervisor takes a worker without this file for one that is loading.
        self._activity = ActivityWriter.from_environment()
        self._activity.start_heartbeat()
        logger.info("%s is loaded: %s", self._model_name, self._short_description())

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """One body for each request of the batch; statuses, content types and headers go through `context`."""
        headers = [context.get_all_request_header(index) for index in range(len(data))]
        is_description = len(data) == 1 and not data[0] and headers[0].get("describe") == "True"
        # A client that drains a version asks for descriptions and waits until the workers answer no other request.
        self._activity.begin_batch(0 if is_description else len(data))
        size = sum(map(size_of, data))
        try:
            if is_description:
                hold_if_asked(self._activity)
                return [to_json(self._description())]
            return self._handle(data, headers, context)
        finally:
            self._activity.end_batch()
            for fields in data:
                release(fields)  # also those that tensors referred to
            if size > TRIM_BYTES:
                trim()
            self._metrics.flush()

    def _handle(
        self, data: Sequence[Mapping[str, Any]], headers: Sequence[Mapping[str, Any]], context: Any
    ) -> list[bytes]:
        # TorchServe kills a worker after responseTimeout, and all its requests with it. A quarter of it is for
        # opening and decoding, in equal shares; no run of the model begins after half of it, and a run that reports
        # its steps is ended at nine tenths.
        started, timeout = time.monotonic(), self._response_timeout_s
        self._deadline, self._stop_at = started + timeout / 2, started + 0.9 * timeout
        self._metrics.add(names.REQUESTS, len(data))
        with self._metrics.seconds(names.DECODE_SECONDS):
            requests: list[PendingRequest[Item]] = self._opener.open_all(data, headers, timeout / 4)
            self._decode_all(requests)
        begun = sum(request.error is None for request in requests)
        answers = self._answer(requests)
        with self._metrics.seconds(names.ENCODE_SECONDS):
            bodies = [
                self._close(request, own, index, context)
                for index, (request, own) in enumerate(zip(requests, answers, strict=True))
            ]
        self._admission.finished(begun, time.monotonic() - started)
        return bodies

    def _decode_all(self, requests: Sequence[PendingRequest[Item]]) -> None:
        """Fill in the items of each request, or its first error; inputs of all requests share the pool's threads."""
        inputs = [(request, place) for request in requests for place in range(len(request.payloads))]
        decoded = iter(self._spread(self._decode, inputs))
        for request in requests:
            items = [next(decoded) for _ in request.payloads]
            request.error = next((item for item in items if isinstance(item, HandlerError)), request.error)
            request.items = () if request.error else items
        for request in requests:
            request.payloads = ()

    def _spread(self, work: Callable[[Any], Any], inputs: Sequence[Any]) -> Iterable[Any]:
        """Results in order. A single input is not worth a thread."""
        return self._pool.map(work, inputs) if self._pool and len(inputs) > 1 else map(work, inputs)

    def _decode(self, task: tuple[PendingRequest[Item], int]) -> Item | HandlerError:
        """One input, or its error. None is begun after its request's share of time: its neighbors would lack it."""
        request, place = task
        if request.error:  # one input of several has failed, and so has the request
            return request.error
        request.end = request.end or time.monotonic() + request.seconds
        try:
            with logging_for(request.label):
                check_time(request.end)
                return self.decode(request.payloads[place], request.parameters)
        except Exception as failure:
            with logging_for(request.label):
                error = as_handler_error(failure)
            if isinstance(failure, HandlerError) and len(request.payloads) > 1:
                error = type(error)(f"inputs[{place}]: {error.message}")
            request.error = error
            return error

    def _answer(self, requests: Sequence[PendingRequest[Item]]) -> list[list[Answer | HandlerError]]:
        """The answers of each request; items of all requests share the model's batches."""
        owners = [request for request in requests for _ in request.items]
        items = [item for request in requests for item in request.items]
        answers: dict[int, Answer | HandlerError] = {}
        if items:
            with self._metrics.seconds(names.INFERENCE_SECONDS), reporting_to(self._report_step):
                for indices in self.batches(items):
                    answers.update(self._run(indices, items, owners))
                    self._activity.advance()
        in_order = (answers[index] for index in range(len(items)))
        return [[next(in_order) for _ in request.items] for request in requests]

    def _run(
        self, indices: Sequence[int], items: Sequence[Item], owners: Sequence[PendingRequest[Item]]
    ) -> dict[int, Answer | HandlerError]:
        """Answers of one batch of the model, without the items of requests that have become too late meanwhile."""
        requests = {id(owners[index]): owners[index] for index in indices}.values()
        self._opener.recheck(requests)
        errors = {index: error for index in indices if (error := owners[index].error)}
        going = [index for index in indices if index not in errors]
        if not going:
            return dict(errors)
        self._metrics.add(names.BATCH_SIZE, len(going))
        with logging_for(*(request.label for request in requests if request.error is None)):
            return errors | dict(zip(going, self._predict([items[index] for index in going]), strict=True))

    def _predict(self, items: Sequence[Item]) -> list[Answer | HandlerError]:
        """A batch that fails is tried again item by item, so that only the item at fault fails."""
        try:
            check_time(self._deadline)
            return list(self.predict(items))
        except Exception as error:
            if is_device_lost(error):
                end_process(error)
            if len(items) == 1 or isinstance(error, Overloaded):
                return [as_handler_error(error)] * len(items)
            logger.warning(
                "a batch of %d failed (%s); trying its items alone", len(items), type(error).__name__
            )
        return [self._predict([item])[0] for item in items]

    def _report_step(self) -> None:
        self._activity.advance()
        check_time(self._stop_at)

    def _close(
        self, request: PendingRequest[Item], answers: list[Answer | HandlerError], index: int, context: Any
    ) -> bytes:
        error = request.error or next(
            (answer for answer in answers if isinstance(answer, HandlerError)), None
        )
        good = [answer for answer in answers if not isinstance(answer, HandlerError)]
        body = Body(b"", "application/json")
        if error is None:
            try:
                body = to_body(request.reply.answer(self, good))
            except Exception as failure:
                with logging_for(request.label):
                    error = as_handler_error(failure)
        self._metrics.add(names.GENERATED_TOKENS, sum(map(self.generated_tokens, good)))
        if request.is_grpc:
            # Without it a StreamPredictions call, which any client may make, kills the worker.
            context.set_response_header(index, "ts_stream_next", "false")
        if error is not None:
            self._metrics.add(names.FAILED_ITEMS, 1, error.type)
            context.set_response_status(error.code, error.type, index)
            body = to_body(request.reply.error(error))
            if isinstance(error, Overloaded) and not request.is_grpc:
                context.set_response_header(index, "Retry-After", str(self._admission.retry_after_s))
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
