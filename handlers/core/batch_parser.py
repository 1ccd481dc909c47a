"""Parse the requests of a batch, without decoding their inputs."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.core.admission import AdmissionController, Rejection
from handlers.core.body_memory import release
from handlers.core.deadline import read_timing, reserved_values
from handlers.core.errors import InvalidRequest
from handlers.core.exception_handling import check_time_limit, to_handler_error
from handlers.core.ignored_parameters import IgnoredParameter, drop_ignored
from handlers.core.metrics import SKIPPED_REQUESTS, Metrics
from handlers.core.parameters import Parameter, parse_parameters
from handlers.core.pending_request import PendingRequest
from handlers.core.request import RequestParser
from handlers.core.request_content import ParserSettings, is_grpc_request
from handlers.core.request_log import log_context


@dataclass(frozen=True)
class BatchParser:
    """A parser for batches of requests to one model.

    Attributes:
        settings: The settings of the request parser.
        parameters: The model's parameters.
        ignored_parameters: Parameters that are accepted and have no effect.
        admission: The controller that rejects late requests.
        metrics: The metrics that count rejected requests.
    """

    settings: ParserSettings
    parameters: Sequence[Parameter]
    ignored_parameters: Sequence[IgnoredParameter]
    admission: AdmissionController
    metrics: Metrics

    def parse_batch(
        self, data: Sequence[Mapping[str, Any]], headers: Sequence[Mapping[str, Any]], seconds: float
    ) -> list[PendingRequest[Any]]:
        """Parse the requests of a batch. Late requests are rejected before the first request is parsed.

        Args:
            data: The fields of each request.
            headers: The headers of each request.
            seconds: Time limit of the batch, after which no request is parsed. Each request has an equal share of it
                for parsing and decoding.
        """
        end = time.monotonic() + seconds
        share = seconds / max(1, len(data))
        requests = [self._arrive(*pair) for pair in zip(data, headers, strict=True)]
        rejections = self.admission.check_batch([request.timing for request in requests])
        for request, rejection in zip(requests, rejections, strict=True):
            if rejection is not None:
                self._skip(request, rejection)
        for request in requests:
            self._parse(request, end, share)
        return requests

    def recheck(self, requests: Iterable[PendingRequest[Any]]) -> None:
        """Reject requests whose deadline has passed or whose client has disconnected since the batch arrived."""
        for request in requests:
            if request.error is None and (rejection := self.admission.check(request.timing)):
                self._skip(request, rejection)

    def _arrive(self, fields: Mapping[str, Any], headers: Mapping[str, Any]) -> PendingRequest[Any]:
        """Return an unparsed request with its reserved values, such as the deadline."""
        is_grpc = is_grpc_request(headers)
        reserved, fields = reserved_values(fields, headers, is_grpc)
        parser = RequestParser(fields, headers, self.settings)
        return PendingRequest(fields, headers, is_grpc, read_timing(reserved), parser.encoder)

    def _skip(self, request: PendingRequest[Any], rejection: Rejection) -> None:
        request.error = rejection.error
        if rejection.reason:
            self.metrics.add(SKIPPED_REQUESTS, 1, rejection.reason)

    def _parse(self, request: PendingRequest[Any], end: float, seconds: float) -> None:
        """Parse one request, and release the memory of its bodies."""
        start = time.monotonic()
        parser = RequestParser(request.fields, request.headers, self.settings)
        try:
            if request.error is None:
                check_time_limit(end)
                if request.headers.get("explain") == "True":
                    raise InvalidRequest("explanations are not supported; use /predictions")
                message = parser.parse()
                request.encoder = message.encoder
                parameters = drop_ignored(message.parameters, self.ignored_parameters)
                request.parameters = parse_parameters(parameters, self.parameters)
                request.payloads = message.payloads
                request.seconds = seconds - (time.monotonic() - start)
        except Exception as error:
            request.encoder = parser.encoder
            with log_context(request.label):
                request.error = to_handler_error(error)
        finally:
            release(request.fields)
            request.fields = parser.fields = {}
