"""From what TorchServe hands on to a request that can be decoded, or its error; nothing is decoded here."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.core import metrics as names
from handlers.core.admission import Admission, Refusal
from handlers.core.deadline import read_arrival, reserved_values
from handlers.core.errors import InvalidRequest
from handlers.core.faults import as_handler_error, check_time
from handlers.core.memory import release
from handlers.core.metrics import Metrics
from handlers.core.parameters import Parameter, parse_parameters
from handlers.core.passed_over import PassedOver, without
from handlers.core.pending import PendingRequest
from handlers.core.request import RequestParser, comes_by_grpc
from handlers.core.request_log import logging_for


@dataclass
class RequestOpener:
    """Opens the requests of one model. The first six attributes are those of `RequestParser`."""

    model_name: str
    model_version: str
    payload_fields: tuple[str, ...]
    max_items: int
    takes_numbers: bool
    takes_text: bool
    parameters: Sequence[Parameter]
    passed_over: Sequence[PassedOver]
    admission: Admission
    metrics: Metrics

    def open_all(
        self, data: Sequence[Mapping[str, Any]], headers: Sequence[Mapping[str, Any]], seconds: float
    ) -> list[PendingRequest[Any]]:
        """The requests of a batch. Those that are too late are refused before any is read.

        Args:
            seconds: For the whole batch. No request is opened later, and each has an equal share for opening and
                decoding.
        """
        latest = time.monotonic() + seconds
        share = seconds / max(1, len(data))
        requests = [self._arrive(*pair) for pair in zip(data, headers, strict=True)]
        refusals = self.admission.check_batch([request.arrival for request in requests])
        for request, refusal in zip(requests, refusals, strict=True):
            if refusal is not None:
                self._skip(request, refusal)
        for request in requests:
            self._open(request, latest, share)
        return requests

    def recheck(self, requests: Iterable[PendingRequest[Any]]) -> None:
        """Refuse those that have become too late since the batch arrived."""
        for request in requests:
            if request.error is None and (refusal := self.admission.check(request.arrival)):
                self._skip(request, refusal)

    def _arrive(self, fields: Mapping[str, Any], headers: Mapping[str, Any]) -> PendingRequest[Any]:
        """A request of which nothing is read but when it must be answered."""
        is_grpc = comes_by_grpc(headers)
        reserved, fields = reserved_values(fields, headers, is_grpc)
        parser = self._parser(fields, headers)
        return PendingRequest(fields, headers, is_grpc, read_arrival(reserved), parser.reply)

    def _parser(self, fields: Mapping[str, Any], headers: Mapping[str, Any]) -> RequestParser:
        return RequestParser(
            fields,
            headers,
            self.model_name,
            self.model_version,
            self.payload_fields,
            self.max_items,
            self.takes_numbers,
            self.takes_text,
            {each.name for each in self.parameters} | {each.name for each in self.passed_over},
        )

    def _skip(self, request: PendingRequest[Any], refusal: Refusal) -> None:
        request.error = refusal.error
        if refusal.reason:
            self.metrics.add(names.SKIPPED_REQUESTS, 1, refusal.reason)

    def _open(self, request: PendingRequest[Any], latest: float, seconds: float) -> None:
        """What one request asks for. Its bodies are released."""
        start = time.monotonic()
        parser = self._parser(request.fields, request.headers)
        try:
            if request.error is None:
                check_time(latest)
                if request.headers.get("explain") == "True":
                    raise InvalidRequest("explanations are not offered; use /predictions")
                message = parser.read()
                request.reply = message.reply
                given = without(message.parameters, self.passed_over)
                request.parameters = parse_parameters(given, self.parameters)
                request.payloads = message.payloads
                request.seconds = seconds - (time.monotonic() - start)
        except Exception as error:
            request.reply = parser.reply
            with logging_for(request.label):
                request.error = as_handler_error(error)
        finally:
            release(request.fields)
            request.fields = parser.fields = {}
