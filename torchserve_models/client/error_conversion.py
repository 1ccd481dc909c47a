"""Conversion of REST answers, gRPC statuses and errors inside gRPC responses into errors of the client."""

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from torchserve_models.client.errors import (
    AccessDenied,
    BadRequest,
    ClientError,
    Conflict,
    DeadlineExceeded,
    ImageTooLarge,
    InternalError,
    InvalidImage,
    InvalidParameter,
    InvalidRequest,
    InvalidText,
    ModelNotFound,
    NotAllowed,
    NotFound,
    OutOfMemory,
    Overloaded,
    TextTooLong,
    Timeout,
    TooLarge,
    TooManyItems,
    TorchServeError,
    Unavailable,
    WorkerDied,
)

_BY_TYPE: dict[str, type[TorchServeError]] = {
    cls.__name__: cls
    for cls in (
        BadRequest, InvalidRequest, InvalidParameter, InvalidImage, InvalidText, ModelNotFound,
        TooLarge, ImageTooLarge, TextTooLong, TooManyItems, InternalError, Overloaded, OutOfMemory,
        DeadlineExceeded,
    )
} | {
    # names of TorchServe's Java classes
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

# TorchServe's status and type do not identify these errors: over gRPC all of them are INTERNAL.
_BY_MESSAGE: tuple[tuple[str, type[TorchServeError]], ...] = (
    ("has no worker to serve", Overloaded),
    ("Worker died.", WorkerDied),
    ("Worker scaled down.", WorkerDied),
    ("Prediction failed", InternalError),  # a handler raised an exception: 503, but retrying does not help
    ("Model API disabled", NotAllowed),
)


def error_from_answer(code: int, type: str | None, message: str) -> TorchServeError:
    """Return the error for an answer. The class is chosen by type, then by message, then by code."""
    cls = _BY_TYPE.get(type or "")
    if cls is None or cls is InternalError:
        cls = next((cls for text, cls in _BY_MESSAGE if text in message), cls)
    if cls is None:
        cls = _BY_CODE.get(code) or (InternalError if code >= 500 else ClientError)
    return cls(message, code=code, type=type)


def error_from_body(code: int, body: bytes) -> TorchServeError:
    """Return the error for a REST answer. A body that is not a JSON object is replaced by the status."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        reason = "the request is larger than the server accepts" if code == 413 else "no reason was given"
        return error_from_answer(code, None, f"{reason} (HTTP {code})")
    names = ("message", "error", "reason", "status")
    message = next((value[name] for name in names if value.get(name)), f"HTTP {code}")
    type_ = value.get("type")
    return error_from_answer(code, type_ if isinstance(type_, str) else None, str(message))


def annotate(error: TorchServeError, headers: Mapping[str, str]) -> TorchServeError:
    """Set request id, `retried` and `retry_after` from headers with lower-case names; return the error."""
    error.request_id = headers.get("x-request-id") or None
    error.retried = "x-retried" in headers
    if isinstance(error, Overloaded):
        error.retry_after = _seconds(headers.get("retry-after"))
    return error


def _seconds(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header: a number, or a date in UTC. None for anything else."""
    if not value or not value.isascii():
        return None
    if re.fullmatch(r"\d+(?:\.\d+)?", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def error_from_payload(value: Any) -> TorchServeError | None:
    """Return the error in a gRPC response with status OK, or None."""
    if not isinstance(value, dict) or not value.keys() >= {"code", "type", "message"}:
        return None
    code = value["code"]
    return error_from_answer(
        code if isinstance(code, int) else 500, str(value["type"]), str(value["message"])
    )


def error_from_trailers(metadata: Mapping[str, str], details: str) -> TorchServeError | None:
    """Return the error that the gateway describes in trailers, as over REST; None without these trailers."""
    type_, code = metadata.get("x-error-type"), metadata.get("x-error-code", "")
    return error_from_answer(int(code), type_, details) if type_ and code.isdecimal() else None


# HTTP status for each gRPC status that TorchServe sends; TorchServe's class GRPCUtils has the reverse mapping.
_HTTP_CODES = {
    "INVALID_ARGUMENT": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404,
    "UNIMPLEMENTED": 501, "ABORTED": 409, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400,
}  # fmt: skip
_JAVA_CLASS = re.compile(r"(?:[\w.]*\.)?(\w+(?:Exception|Error))(?:\.?\(\))?")


def error_from_status(status: str, details: str) -> TorchServeError:
    """Return the error for a gRPC status.

    The details of a TorchServe error are a message and, on the last line, the name of a Java class.
    """
    message, _, last = details.rpartition("\n")
    java_class = _JAVA_CLASS.fullmatch(last.strip())
    type_ = java_class[1] if java_class else None
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
    error = error_from_answer(code, type_, message or f"the server gave no reason (gRPC status {status})")
    if status in ("INTERNAL", "PERMISSION_DENIED") and error.default_code is not None:
        error.code = error.default_code  # as over REST: 503 for a full queue, 404 for an unknown model
    return error
