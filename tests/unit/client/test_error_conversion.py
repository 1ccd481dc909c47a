"""Conversion of the server's error answers to exception classes."""

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from torchserve_models.client import error_conversion, errors


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (400, {"code": 400, "type": "InvalidText", "message": "empty"}, errors.InvalidText),
        (400, {"code": 400, "type": "BrandNew", "message": "m"}, errors.BadRequest),
        (413, {"code": 413, "type": "TooManyItems", "message": "m"}, errors.TooManyItems),
        (413, {"code": 413, "type": "BrandNew", "message": "m"}, errors.TooLarge),
        (413, None, errors.TooLarge),
        (418, {"code": 418, "type": "Teapot", "message": "m"}, errors.ClientError),
        (400, {"error": "open inference", "code": 400, "type": "InvalidRequest"}, errors.InvalidRequest),
        (400, {"code": 400, "type": "InvalidKeyException", "message": "m"}, errors.AccessDenied),
        (401, None, errors.AccessDenied),
        (404, {"code": 404, "type": "ModelVersionNotFoundException", "message": "m"}, errors.ModelNotFound),
        (404, {"code": 404, "type": "ResourceNotFoundException", "message": "m"}, errors.NotFound),
        (405, {"code": 405, "type": "MethodNotAllowedException", "message": "m"}, errors.NotAllowed),
        (409, {"code": 409, "type": "ConflictStatusException", "message": "m"}, errors.Conflict),
        (429, None, errors.Overloaded),
        (500, {"code": 500, "type": "InternalServerException", "message": "Worker died."}, errors.WorkerDied),
        (500, {"code": 500, "type": "InternalServerException", "message": "x"}, errors.InternalError),
        (500, {"code": 500, "type": "InternalError", "message": "x"}, errors.InternalError),
        (502, None, errors.InternalError),
        (503, {"code": 503, "type": "ServiceUnavailableException", "message": "x"}, errors.Overloaded),
        (503, {"code": 503, "type": "Overloaded", "message": "x", "error": "x"}, errors.Overloaded),
        (504, None, errors.Timeout),
        (504, {"code": 504, "type": "DeadlineExceeded", "message": "x"}, errors.DeadlineExceeded),
        (507, {"code": 507, "type": "InternalServerException", "message": "Worker died."}, errors.WorkerDied),
        (
            500,
            {"code": 500, "type": "InternalServerException", "message": "Worker scaled down."},
            errors.WorkerDied,
        ),
        (507, {"code": 507, "type": "OutOfMemory", "message": "x"}, errors.OutOfMemory),
        (500, {"status": "Unhealthy"}, errors.InternalError),
    ],
)
def test_rest_answer_becomes_its_error_class(code, body, expected):
    error = error_conversion.error_from_body(code, b"<html>" if body is None else json.dumps(body).encode())
    assert type(error) is expected
    assert error.code == code
    assert error.message
    if body and "type" in body:
        assert error.as_dict() == {
            "code": code,
            "type": body["type"],
            "message": body.get("message") or body["error"],
        }


ARCHIVE = "org.pytorch.serve.archive.model"
HTTP = "org.pytorch.serve.http"
ABSENT = f"Model not found: m\n{ARCHIVE}.ModelNotFoundException"
NO_WORKER = 'Model "m" has no worker to serve inference request.\nInternalServerException.()'
NO_NAME = "Parameter model_name is required.\nBadRequestException.()"


@pytest.mark.parametrize(
    ("status", "details", "expected", "message"),
    [
        ("NOT_FOUND", ABSENT, errors.ModelNotFound, "Model not found: m"),
        ("INTERNAL", ABSENT, errors.ModelNotFound, "Model not found: m"),
        ("INTERNAL", NO_WORKER, errors.Overloaded, 'Model "m" has'),
        ("INTERNAL", f"Worker died.\n{HTTP}.InternalServerException", errors.WorkerDied, "Worker died."),
        ("INTERNAL", NO_NAME, errors.InvalidRequest, "Parameter"),
        ("INTERNAL", "boom", errors.InternalError, "boom"),
        ("INVALID_ARGUMENT", f"m\n{HTTP}.ConflictStatusException", errors.Conflict, "m"),
        ("INVALID_ARGUMENT", f"m\n{HTTP}.BadRequestException", errors.BadRequest, "m"),
        ("PERMISSION_DENIED", f"Model API disabled\n{ARCHIVE}.ModelException", errors.NotAllowed, "Model"),
        ("UNAVAILABLE", "Socket closed", errors.Unavailable, "Socket closed"),
        ("UNAVAILABLE", f"m\n{HTTP}.InternalServerException", errors.Overloaded, "m"),
        ("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (2 vs. 1)", errors.TooLarge, "CLIENT"),
        ("RESOURCE_EXHAUSTED", "gRPC message exceeds maximum size 9: 10", errors.TooLarge, "gRPC"),
        ("RESOURCE_EXHAUSTED", "the message is larger than 16 MiB", errors.TooLarge, "the message"),
        ("RESOURCE_EXHAUSTED", "too many requests", errors.Overloaded, "too many"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", errors.Timeout, "no answer"),
        ("UNIMPLEMENTED", "Method not found!", errors.InternalError, "Method not found!"),
        ("UNKNOWN", "", errors.InternalError, "the server gave no reason"),
    ],
)
def test_grpc_status_becomes_its_error_class(status, details, expected, message):
    error = error_conversion.error_from_status(status, details)
    assert type(error) is expected
    if status == "INTERNAL":
        assert error.code == expected.default_code  # as over REST
    assert error.message.startswith(message)
    assert "pytorch" not in error.message


@pytest.mark.parametrize(
    ("details", "sent"),
    [
        ("failed to connect to all addresses; last error: Connection refused", False),
        ("DNS resolution failed for nowhere.invalid:7070", False),
        ("Socket closed", True),
        ("recvmsg:Connection reset by peer", True),
    ],
)
def test_grpc_unavailable_knows_whether_anything_was_sent(details, sent):
    error = error_conversion.error_from_status("UNAVAILABLE", details)
    assert isinstance(error, errors.Unavailable)
    assert error.sent is sent


@pytest.mark.parametrize(
    "value",
    [
        [],
        [{"code": 400, "type": "x", "message": "m"}],
        {"code": 400, "message": "m"},
        {"label": "code", "score": 1},
        "text",
        None,
    ],
)
def test_other_grpc_answer_is_not_an_error(value):
    assert error_conversion.error_from_payload(value) is None


@pytest.mark.parametrize("more", [{}, {"error": "m"}])
@pytest.mark.parametrize(
    ("code", "expected"), [(413, errors.ImageTooLarge), (503, errors.Overloaded), (507, errors.OutOfMemory)]
)
def test_error_inside_grpc_answer_is_raised(code, expected, more):
    error = error_conversion.error_from_payload(
        {"code": code, "type": expected.__name__, "message": "m", **more}
    )
    assert type(error) is expected
    assert (error.code, error.message) == (code, "m")


def test_timeout_is_python_timeout_error():
    assert issubclass(errors.Timeout, TimeoutError)
    assert errors.Timeout("late").as_dict() == {"code": None, "type": "Timeout", "message": "late"}


def test_every_handler_error_type_has_its_class():
    """A class added to the server's tree needs its counterpart in the client."""
    from handlers.core import errors as server

    theirs = {
        cls
        for name, cls in vars(server).items()
        if isinstance(cls, type) and issubclass(cls, server.HandlerError) and cls is not server.HandlerError
    }
    for cls in theirs:
        error = error_conversion.error_from_answer(cls.code, cls.__name__, "m")
        assert type(error).__name__ == cls.__name__
        assert type(error).default_code == cls.code


@pytest.mark.parametrize("hours", [1, -1])
def test_retry_after_accepts_number_or_date(hours):
    assert (
        error_conversion.annotate(
            error_conversion.error_from_body(429, b""), {"retry-after": "7"}
        ).retry_after
        == 7
    )
    date = format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)
    seconds = error_conversion.annotate(
        error_conversion.error_from_body(429, b""), {"retry-after": date}
    ).retry_after
    assert 3000 < seconds <= 3600 if hours > 0 else seconds == 0


@pytest.mark.parametrize("value", ["", "-1", "soon", "1,5", "٣", "Wed, 99 Oct 2015 07:28:00 GMT"])
def test_invalid_retry_after_is_ignored(value):
    assert (
        error_conversion.annotate(
            error_conversion.error_from_body(429, b""), {"retry-after": value}
        ).retry_after
        is None
    )


@pytest.mark.parametrize("time_zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize(
    "form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"]
)
def test_retry_after_date_is_read_as_utc(monkeypatch, time_zone, form):
    monkeypatch.setenv("TZ", time_zone)
    time.tzset()
    try:
        now = time.time()
        monkeypatch.setattr(error_conversion.time, "time", lambda: now)
        date = time.strftime(form, time.gmtime(now + 100))
        seconds = error_conversion.annotate(
            error_conversion.error_from_body(503, b""), {"retry-after": date}
        ).retry_after
    finally:
        monkeypatch.undo()
        time.tzset()
    assert 90 < seconds <= 100


def test_retry_after_accepts_fraction_of_second():
    assert (
        error_conversion.annotate(
            error_conversion.error_from_body(503, b""), {"retry-after": "0.5"}
        ).retry_after
        == 0.5
    )


def test_trailers_of_the_gateway_identify_the_error():
    trailers = {"x-error-type": "TextTooLong", "x-error-code": "413"}
    error = error_conversion.error_from_trailers(trailers, "too long")
    assert (type(error).__name__, error.code, error.message) == ("TextTooLong", 413, "too long")
    for incomplete in ({}, {"x-error-type": "TextTooLong"}, {"x-error-type": "a", "x-error-code": "x"}):
        assert error_conversion.error_from_trailers(incomplete, "too long") is None
