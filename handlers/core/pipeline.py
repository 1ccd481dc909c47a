"""Run batches of requests through a task, independent of the server that they come from."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from handlers.core import metrics as names
from handlers.core.activity import ActivityWriter
from handlers.core.admission import Admission
from handlers.core.edge import EdgeReader
from handlers.core.errors import HandlerError, Overloaded
from handlers.core.faults import as_handler_error, check_time, end_process, is_device_lost
from handlers.core.holding import hold_if_asked
from handlers.core.memory import TRIM_BYTES, release, size_of, trim
from handlers.core.metrics import Metrics
from handlers.core.opening import RequestOpener
from handlers.core.pending import PendingRequest
from handlers.core.progress import reporting_to
from handlers.core.reply import Body, to_body
from handlers.core.request_log import logging_for
from handlers.core.task import Answer, Item, Task
from handlers.core.tensor import TensorSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PipelineSettings:
    """What the server knows about the model.

    Attributes:
        model_name: The name under which clients address the model.
        model_version: Its version.
        max_items: The most inputs of one request.
        response_timeout_s: Seconds after which the server gives up on a batch.
    """

    model_name: str
    model_version: str
    max_items: int
    response_timeout_s: float


@dataclass(frozen=True)
class Response:
    """The response to one request.

    Attributes:
        content: The body.
        content_type: The body's media type.
        headers: Further HTTP headers.
        error: None if the request succeeded; otherwise the error, whose `code` is the HTTP status.
        is_grpc: Whether the request came over gRPC, which has no headers.
    """

    content: bytes
    content_type: str
    headers: Mapping[str, str]
    error: HandlerError | None
    is_grpc: bool


class BatchPipeline(Generic[Item, Answer]):
    """Parse requests, decode their inputs, run the task in batches, and write one response for each request.

    The pipeline isolates errors per request, enforces deadlines, records metrics, and reports the worker's activity
    to the supervisor. `task` must be loaded.
    """

    def __init__(self, task: Task[Item, Answer], settings: PipelineSettings, metrics: Metrics) -> None:
        self._task = task
        self._settings = settings
        self._metrics = metrics
        self._allowed = tuple(task.parameters())
        self._admission = Admission(EdgeReader.from_environment(settings.model_name), task.batch_size)
        self._opener = RequestOpener(
            settings.model_name,
            settings.model_version,
            task.payload_fields,
            settings.max_items,
            task.takes_numbers,
            task.media_type.startswith("text/"),
            self._allowed,
            tuple(task.passed_over()),
            self._admission,
            metrics,
        )

    def start(self) -> None:
        """Warm up the task, then report to the supervisor that the worker is ready."""
        self._task.warm_up()
        # The supervisor takes a worker without this file for one that is loading.
        self._activity = ActivityWriter.from_environment()
        self._activity.start_heartbeat()

    def run(self, data: Sequence[Mapping[str, Any]], headers: Sequence[Mapping[str, Any]]) -> list[Response]:
        """Return one response for each request of a batch, in order.

        Args:
            data: The fields of each request, such as `body`. They are released when this method returns.
            headers: The headers of each request.
        """
        self._activity.begin_batch(len(data))
        size = sum(map(size_of, data))
        try:
            return self._run_batch(data, headers)
        finally:
            self._activity.end_batch()
            for fields in data:
                release(fields)  # also those that tensors referred to
            if size > TRIM_BYTES:
                trim()
            self._metrics.flush()

    def describe(self) -> dict[str, Any]:
        """Return the task's inputs, outputs and parameters, for the describe API and the API's documentation.

        A client that drains a version asks for descriptions and waits until the workers answer no other request.
        """
        self._activity.begin_batch(0)
        try:
            hold_if_asked(self._activity)
        finally:
            self._activity.end_batch()
        task = self._task
        default = TensorSpec(task.payload_fields[0], "BYTES", (-1,))
        return {
            "max_items": self._settings.max_items,
            "fields": list(task.payload_fields),
            "inputs": [(task.input_tensor or default).as_dict()],
            "outputs": [tensor.as_dict() for tensor in task.output_tensors],
            "parameters": [parameter.as_dict() for parameter in self._allowed],
            "answer": dict(task.answer_schema),
            "media_type": task.media_type,
            "example": task.example,
        }

    def _run_batch(
        self, data: Sequence[Mapping[str, Any]], headers: Sequence[Mapping[str, Any]]
    ) -> list[Response]:
        # TorchServe kills a worker after responseTimeout, and all its requests with it. A quarter of it is for
        # opening and decoding, in equal shares; no run of the model begins after half of it, and a run that reports
        # its steps is ended at nine tenths.
        started, timeout = time.monotonic(), self._settings.response_timeout_s
        self._deadline, self._stop_at = started + timeout / 2, started + 0.9 * timeout
        self._metrics.add(names.REQUESTS, len(data))
        with self._metrics.seconds(names.DECODE_SECONDS):
            requests: list[PendingRequest[Item]] = self._opener.open_all(data, headers, timeout / 4)
            self._decode_all(requests)
        begun = sum(request.error is None for request in requests)
        answers = self._answer(requests)
        with self._metrics.seconds(names.ENCODE_SECONDS):
            responses = [self._respond(*pair) for pair in zip(requests, answers, strict=True)]
        self._admission.finished(begun, time.monotonic() - started)
        return responses

    def _decode_all(self, requests: Sequence[PendingRequest[Item]]) -> None:
        """Fill in the items of each request, or its first error; inputs of all requests share the pool's threads."""
        inputs = [(request, place) for request in requests for place in range(len(request.payloads))]
        decoded = iter(self._task.spread(self._decode, inputs))
        for request in requests:
            items = [next(decoded) for _ in request.payloads]
            request.error = next((item for item in items if isinstance(item, HandlerError)), request.error)
            request.items = () if request.error else items
        for request in requests:
            request.payloads = ()

    def _decode(self, work: tuple[PendingRequest[Item], int]) -> Item | HandlerError:
        """One input, or its error. None is begun after its request's share of time: its neighbors would lack it."""
        request, place = work
        if request.error:  # one input of several has failed, and so has the request
            return request.error
        request.end = request.end or time.monotonic() + request.seconds
        try:
            with logging_for(request.label):
                check_time(request.end)
                return self._task.decode(request.payloads[place], request.parameters)
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
                for indices in self._task.batches(items):
                    answers.update(self._run_model(indices, items, owners))
                    self._activity.advance()
        in_order = (answers[index] for index in range(len(items)))
        return [[next(in_order) for _ in request.items] for request in requests]

    def _run_model(
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
            return list(self._task.predict(items))
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

    def _respond(self, request: PendingRequest[Item], answers: Sequence[Answer | HandlerError]) -> Response:
        error = request.error or next(
            (answer for answer in answers if isinstance(answer, HandlerError)), None
        )
        good = [answer for answer in answers if not isinstance(answer, HandlerError)]
        body = Body(b"", "application/json")
        if error is None:
            try:
                body = to_body(request.reply.answer(self._task, good))
            except Exception as failure:
                with logging_for(request.label):
                    error = as_handler_error(failure)
        self._metrics.add(names.GENERATED_TOKENS, sum(map(self._task.generated_tokens, good)))
        if error is not None:
            self._metrics.add(names.FAILED_ITEMS, 1, error.type)
            body = to_body(request.reply.error(error))
        headers = dict(body.headers)
        if isinstance(error, Overloaded) and not request.is_grpc:
            headers["Retry-After"] = str(self._admission.retry_after_s)
        return Response(body.content, body.content_type, headers, error, request.is_grpc)
