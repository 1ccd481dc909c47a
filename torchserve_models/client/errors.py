"""What can go wrong, as one tree that mirrors the server's own.

TorchServeError
  ├─ ClientError               the request is at fault; sending it again will not help
  │    ├─ BadRequest (400)
  │    │    ├─ InvalidRequest      the body, its fields, a name
  │    │    ├─ InvalidParameter    a parameter: unknown, of the wrong type or out of range
  │    │    ├─ InvalidImage        bytes that are no readable image
  │    │    └─ InvalidText         text that is empty or not UTF-8
  │    ├─ AccessDenied (401, 403)
  │    ├─ NotFound (404)
  │    │    └─ ModelNotFound       no model, or no version, of that name
  │    ├─ NotAllowed (405)         the server does not offer this (for example registering, when it is switched off)
  │    ├─ Conflict (409)           for example a model that is registered already
  │    └─ TooLarge (413)
  │         ├─ ImageTooLarge       bytes or pixels
  │         ├─ TextTooLong         characters, or tokens where truncation is off
  │         └─ TooManyItems        inputs in one request
  ├─ ServerError               the server is at fault
  │    ├─ InternalError (500)
  │    ├─ WorkerDied (500, 507)    the worker process ended while it had this request
  │    ├─ Overloaded (503, 429)    no worker, a full queue, or no time left for it: send it again later
  │    └─ OutOfMemory (507)
  ├─ TransportError            no answer
  │    ├─ Unavailable              no connection, or one that broke
  │    └─ Timeout                  the deadline passed here
  │         └─ DeadlineExceeded (504) the deadline passed at the server, which did not begin the request
  ├─ UnexpectedAnswer          an answer that is not TorchServe's: most likely something else listens there
"""

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any


class TorchServeError(Exception):
    """`message` is for people, `code` the HTTP status where there is one, `type` the server's name of the error.

    `request_id` is the answer's `X-Request-Id`, or the one that was sent, and None where there is neither. `retried`:
    the proxy has already sent the request a second time (the answer's header `X-Retried`).
    """

    default_code: int | None = None
    request_id: str | None = None
    retried: bool = False

    def __init__(self, message: str, *, code: int | None = None, type: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code
        self.type = type or self.__class__.__name__

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        value = {"code": self.code, "type": self.type, "message": self.message}
        return value | ({"request_id": self.request_id} if self.request_id else {})


class ClientError(TorchServeError):
    default_code = 400


class BadRequest(ClientError):
    pass


class InvalidRequest(BadRequest):
    pass


class InvalidParameter(BadRequest):
    pass


class InvalidImage(BadRequest):
    pass


class InvalidText(BadRequest):
    pass


class AccessDenied(ClientError):
    default_code = 403


class NotFound(ClientError):
    default_code = 404


class ModelNotFound(NotFound):
    pass


class NotAllowed(ClientError):
    default_code = 405


class Conflict(ClientError):
    default_code = 409


class TooLarge(ClientError):
    default_code = 413


class ImageTooLarge(TooLarge):
    pass


class TextTooLong(TooLarge):
    pass


class TooManyItems(TooLarge):
    pass


class ServerError(TorchServeError):
    default_code = 500


class InternalError(ServerError):
    pass


class WorkerDied(ServerError):
    pass


class Overloaded(ServerError):
    """`retry_after`: seconds that a proxy asks to wait, where it does."""

    default_code = 503
    retry_after: float | None = None


class OutOfMemory(ServerError):
    default_code = 507


class TransportError(TorchServeError):
    pass


class Unavailable(TransportError):
    """`sent` is False where it is certain that the server received nothing of the request."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class Timeout(TransportError, TimeoutError):
    pass


class DeadlineExceeded(Timeout):
    default_code = 504


class UnexpectedAnswer(TorchServeError):
    pass


_BY_TYPE: dict[str, type[TorchServeError]] = {
    cls.__name__: cls
    for cls in (
        BadRequest, InvalidRequest, InvalidParameter, InvalidImage, InvalidText,
        TooLarge, ImageTooLarge, TextTooLong, TooManyItems, InternalError, Overloaded, OutOfMemory,
        DeadlineExceeded,
    )
} | {
    # TorchServe's own names (its Java classes)
    "ModelNotFoundException": ModelNotFound,
    "ModelVersionNotFoundException": ModelNotFound,
    "ResourceNotFoundException": NotFound,
    "MethodNotAllowedException": NotAllowed,
    "ConflictStatusException": Conflict,
    "ServiceUnavailableException": Overloaded,
    "InvalidKeyException": AccessDenied,
}  # fmt: skip

_BY_CODE: dict[int, type[TorchServeError]] = {
    400: BadRequest, 401: AccessDenied, 403: AccessDenied, 404: NotFound, 405: NotAllowed, 409: Conflict,
    413: TooLarge, 429: Overloaded, 503: Overloaded, 504: Timeout, 507: OutOfMemory,
}  # fmt: skip

# TorchServe's status and type do not tell these apart from other errors: over gRPC all of them are INTERNAL.
_BY_MESSAGE: tuple[tuple[str, type[TorchServeError]], ...] = (
    ("has no worker to serve", Overloaded),
    ("Worker died.", WorkerDied),
    ("Worker scaled down.", WorkerDied),
    ("Prediction failed", InternalError),  # a handler that raises: 503, but nothing that waiting would change
    ("Model API disabled", NotAllowed),
)


def from_answer(code: int, type: str | None, message: str) -> TorchServeError:
    """The error of an answer. The type decides, then TorchServe's wording, then the code, then the code's class."""
    cls = _BY_TYPE.get(type or "")
    if cls is None or cls is InternalError:
        cls = next((cls for text, cls in _BY_MESSAGE if text in message), cls)
    if cls is None:
        cls = _BY_CODE.get(code) or (InternalError if code >= 500 else ClientError)
    return cls(message, code=code, type=type)


def from_body(code: int, body: bytes) -> TorchServeError:
    """The error of a REST answer; a proxy's page or an empty body is described by its status alone."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        reason = "the request is larger than the server accepts" if code == 413 else "no reason was given"
        return from_answer(code, None, f"{reason} (HTTP {code})")
    names = ("message", "error", "reason", "status")
    message = next((value[name] for name in names if value.get(name)), f"HTTP {code}")
    type_ = value.get("type")
    return from_answer(code, type_ if isinstance(type_, str) else None, str(message))


def annotate(error: TorchServeError, headers: Mapping[str, str]) -> TorchServeError:
    """Add what an answer's headers say about its error; `headers` has lower-case names."""
    error.request_id = headers.get("x-request-id") or None
    error.retried = "x-retried" in headers
    if isinstance(error, Overloaded):
        error.retry_after = _seconds(headers.get("retry-after"))
    return error


def _seconds(value: str | None) -> float | None:
    """Of a Retry-After header: a number, or a date, which is in UTC. None for anything else."""
    if not value or not value.isascii():
        return None
    if re.fullmatch(r"\d+(?:\.\d+)?", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def in_value(value: Any) -> TorchServeError | None:
    """The error that gRPC carries in an answer that is OK by its status: at least `code`, `type` and `message`."""
    if not isinstance(value, dict) or not value.keys() >= {"code", "type", "message"}:
        return None
    code = value["code"]
    return from_answer(code if isinstance(code, int) else 500, str(value["type"]), str(value["message"]))


# gRPC's status codes that TorchServe uses, as the HTTP status that it made them from (its GRPCUtils).
_HTTP_CODES = {
    "INVALID_ARGUMENT": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404,
    "UNIMPLEMENTED": 501, "ABORTED": 409, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400,
}  # fmt: skip
_JAVA_CLASS = re.compile(r"(?:[\w.]*\.)?(\w+(?:Exception|Error))(?:\.?\(\))?")


def from_status(status: str, details: str) -> TorchServeError:
    """The error of a gRPC status. TorchServe's details are the message and, on the last line, its Java class."""
    message, _, last = details.rpartition("\n")
    found = _JAVA_CLASS.fullmatch(last.strip())
    type_ = found[1] if found else None
    if type_ is None:
        message = details
    lower = details.lower()
    if status == "DEADLINE_EXCEEDED":
        return Timeout("no answer within the deadline")
    if status == "UNAVAILABLE" and type_ is None:
        connected = not any(text in lower for text in ("failed to connect", "dns resolution failed"))
        return Unavailable(details, sent=connected)
    if status == "RESOURCE_EXHAUSTED" and ("larger than" in lower or "maximum size" in lower):
        return TooLarge(details)
    if status == "RESOURCE_EXHAUSTED":
        return Overloaded(message, type=type_)
    if status == "INTERNAL" and type_ == "BadRequestException":
        return InvalidRequest(message, type=type_)
    code = 503 if status == "UNAVAILABLE" else _HTTP_CODES.get(status, 500)
    error = from_answer(code, type_, message or f"the server gave no reason (gRPC status {status})")
    if status in ("INTERNAL", "PERMISSION_DENIED") and error.default_code is not None:
        error.code = error.default_code  # as over REST: 503 for a full queue, 404 for an unknown model
    return error
