"""Run batches of requests through a task, independent of the server."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from handlers.core import metrics as names
from handlers.core.activity import ActivityWriter
from handlers.core.admission import AdmissionController
from handlers.core.batch_parser import BatchParser
from handlers.core.body_memory import TRIM_BYTES, release, size_of, trim
from handlers.core.disconnect_events import DisconnectEventsReader
from handlers.core.errors import HandlerError, Overloaded
from handlers.core.exception_handling import check_time_limit, exit_worker, is_device_lost, to_handler_error
from handlers.core.metrics import Metrics
from handlers.core.pending_request import PendingRequest
from handlers.core.request_content import ParserSettings
from handlers.core.request_log import log_context
from handlers.core.response_encoder import ResponseBody, to_body
from handlers.core.step_reporting import step_callback
from handlers.core.task import Answer, Item, Task
from handlers.core.tensor import TensorSpec
from handlers.core.worker_hold import hold_if_requested

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PipelineSettings:
    """Model settings of the pipeline.

    Attributes:
        model_name: The name under which clients address the model.
        model_version: The model's version.
        max_items: The maximum number of inputs in one request.
        response_timeout_s: Seconds after which the server kills the worker because of a batch.
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
        headers: Additional HTTP headers.
        error: None if the request succeeded; otherwise the error, whose `code` is the HTTP status.
        is_grpc: True if the request came over gRPC, which has no headers.
    """

    content: bytes
    content_type: str
    headers: Mapping[str, str]
    error: HandlerError | None
    is_grpc: bool


class BatchPipeline(Generic[Item, Answer]):
    """A pipeline that parses requests, decodes their inputs, runs the task in batches and encodes the responses.

    The pipeline isolates errors per request, enforces deadlines, records metrics, and reports the worker's activity
    to the supervisor. `task` must be loaded.
    """

    def __init__(self, task: Task[Item, Answer], settings: PipelineSettings, metrics: Metrics) -> None:
        self._task = task
        self._settings = settings
        self._metrics = metrics
        self._allowed = tuple(task.parameters())
        self._admission = AdmissionController(
            DisconnectEventsReader.from_environment(settings.model_name), task.batch_size
        )
        ignored_parameters = tuple(task.ignored_parameters())
        parser_settings = ParserSettings(
            settings.model_name,
            settings.model_version,
            task.payload_fields,
            settings.max_items,
            task.takes_numbers,
            takes_text=task.media_type.startswith("text/"),
            parameter_names={allowed.name for allowed in self._allowed}
            | {ignored.name for ignored in ignored_parameters},
        )
        self._batch_parser = BatchParser(
            parser_settings, self._allowed, ignored_parameters, self._admission, metrics
        )

    def start(self) -> None:
        """Warm up the task, then report to the supervisor that the worker is ready."""
        self._task.warm_up()
        self._metrics.start()
        # Until this file exists, the supervisor assumes that the worker is loading.
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
                release(fields)  # now also bodies that tensors referred to
            if size > TRIM_BYTES:
                trim()

    def describe(self) -> dict[str, Any]:
        """Return the task's inputs, outputs and parameters, for the describe API and the API documentation.

        A client that drains a version calls the describe API to hold the version's workers (worker_hold.py).
        """
        self._activity.begin_batch(0)
        try:
            hold_if_requested(self._activity)
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
        # TorchServe kills a worker, with all its requests, after responseTimeout. A quarter of it is for parsing and
        # decoding, in equal shares. No run of the model begins after half of it, and a run that reports its steps
        # ends at nine tenths.
        started, timeout = time.monotonic(), self._settings.response_timeout_s
        self._deadline, self._stop_at = started + timeout / 2, started + 0.9 * timeout
        self._metrics.add(names.REQUESTS, len(data))
        with self._metrics.seconds(names.DECODE_SECONDS):
            requests: list[PendingRequest[Item]] = self._batch_parser.parse_batch(data, headers, timeout / 4)
            self._decode_all(requests)
        num_started = sum(request.error is None for request in requests)
        answers = self._answer(requests)
        with self._metrics.seconds(names.ENCODE_SECONDS):
            responses = [self._respond(*pair) for pair in zip(requests, answers, strict=True)]
            self._count_tokens(answers)
        now = time.monotonic()
        for request in requests:
            if request.timing.has_start:
                self._metrics.observe(names.REQUEST_SECONDS, request.timing.age(now))
        self._admission.record_batch(num_started, now - started)
        return responses

    def _decode_all(self, requests: Sequence[PendingRequest[Item]]) -> None:
        """Set the items or the first error of each request. Inputs of all requests share the pool's threads."""
        inputs = [(request, index) for request in requests for index in range(len(request.payloads))]
        decoded = iter(self._task.parallel_map(self._decode, inputs))
        for request in requests:
            items = [next(decoded) for _ in request.payloads]
            request.error = next((item for item in items if isinstance(item, HandlerError)), request.error)
            request.items = () if request.error else items
        for request in requests:
            request.payloads = ()

    def _decode(self, work: tuple[PendingRequest[Item], int]) -> Item | HandlerError:
        """Decode one input. Return an error if decoding fails or the request's share of the time has ended."""
        request, index = work
        if request.error:  # another input of this request has failed
            return request.error
        request.end = request.end or time.monotonic() + request.seconds
        try:
            with log_context(request.label):
                check_time_limit(request.end)
                return self._task.decode(request.payloads[index], request.parameters)
        except Exception as failure:
            with log_context(request.label):
                error = to_handler_error(failure)
            if isinstance(failure, HandlerError) and len(request.payloads) > 1:
                error = type(error)(f"inputs[{index}]: {error.message}")
            request.error = error
            return error

    def _answer(self, requests: Sequence[PendingRequest[Item]]) -> list[list[Answer | HandlerError]]:
        """Return the answers of each request. Items of all requests share the model's batches."""
        owners = [request for request in requests for _ in request.items]
        items = [item for request in requests for item in request.items]
        answers: dict[int, Answer | HandlerError] = {}
        if items:
            reporting = step_callback(self._report_step, self._report_draft_tokens)
            with self._metrics.seconds(names.INFERENCE_SECONDS), reporting:
                for indices in self._task.batches(items):
                    answers.update(self._run_model(indices, items, owners))
                    self._activity.advance()
        in_order = (answers[index] for index in range(len(items)))
        return [[next(in_order) for _ in request.items] for request in requests]

    def _run_model(
        self, indices: Sequence[int], items: Sequence[Item], owners: Sequence[PendingRequest[Item]]
    ) -> dict[int, Answer | HandlerError]:
        """Run one batch of the model, without the items of late requests.

        Returns:
            The answer or error of each item, by index.
        """
        requests = {id(owners[index]): owners[index] for index in indices}.values()
        self._batch_parser.recheck(requests)
        errors = {index: error for index in indices if (error := owners[index].error)}
        remaining = [index for index in indices if index not in errors]
        if not remaining:
            return dict(errors)
        self._metrics.observe(names.BATCH_SIZE, len(remaining))
        with log_context(*(request.label for request in requests if request.error is None)):
            return errors | dict(
                zip(remaining, self._predict([items[index] for index in remaining]), strict=True)
            )

    def _predict(self, items: Sequence[Item]) -> list[Answer | HandlerError]:
        """Return an answer or error for each item. If the batch fails, its items are run one by one."""
        try:
            check_time_limit(self._deadline)
            return list(self._task.predict(items))
        except Exception as error:
            if is_device_lost(error):
                exit_worker(error)
            if len(items) == 1 or isinstance(error, Overloaded):
                return [to_handler_error(error)] * len(items)
            logger.warning(
                "a batch of %d failed (%s); running its items one by one", len(items), type(error).__name__
            )
        return [self._predict([item])[0] for item in items]

    def _report_step(self) -> None:
        self._activity.advance()
        check_time_limit(self._stop_at)

    def _report_draft_tokens(self, num_drafted: int, num_accepted: int) -> None:
        """Count drafted tokens. Zero is not counted, like in `_count_tokens`."""
        if num_drafted:
            self._metrics.add(names.DRAFT_TOKENS, num_drafted)
        if num_accepted:
            self._metrics.add(names.ACCEPTED_DRAFT_TOKENS, num_accepted)

    def _count_tokens(self, answers: Sequence[Sequence[Answer | HandlerError]]) -> None:
        """Count the generated tokens of a batch. Zero is not counted, because the front end parses each value."""
        succeeded = (answer for row in answers for answer in row if not isinstance(answer, HandlerError))
        if tokens := sum(map(self._task.generated_tokens, succeeded)):
            self._metrics.add(names.GENERATED_TOKENS, tokens)

    def _respond(self, request: PendingRequest[Item], answers: Sequence[Answer | HandlerError]) -> Response:
        error = request.error or next(
            (answer for answer in answers if isinstance(answer, HandlerError)), None
        )
        succeeded = [answer for answer in answers if not isinstance(answer, HandlerError)]
        body = ResponseBody(b"", "application/json")
        if error is None:
            try:
                body = to_body(request.encoder.encode_answers(self._task, succeeded))
            except Exception as failure:
                with log_context(request.label):
                    error = to_handler_error(failure)
        if error is not None:
            self._metrics.add(names.FAILED_ITEMS, 1, error.type)
            body = to_body(request.encoder.encode_error(error))
        headers = dict(body.headers)
        if isinstance(error, Overloaded) and not request.is_grpc:
            headers["Retry-After"] = str(self._admission.retry_after_s)
        return Response(body.content, body.content_type, headers, error, request.is_grpc)
