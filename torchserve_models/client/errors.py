"""The client's errors, as one tree that mirrors the server's errors.

TorchServeError
  ├─ ClientError               the request is invalid; sending it again does not help
  │    ├─ BadRequest (400)
  │    │    ├─ InvalidRequest      the body, its fields, a name
  │    │    ├─ InvalidParameter    a parameter: unknown, of the wrong type or out of range
  │    │    ├─ InvalidImage        bytes that are not a readable image
  │    │    └─ InvalidText         text that is empty or not UTF-8
  │    ├─ AccessDenied (401, 403)
  │    ├─ NotFound (404)
  │    │    └─ ModelNotFound       no model, or no version, of that name
  │    ├─ NotAllowed (405)         the server does not offer this operation (for example, registering is disabled)
  │    ├─ Conflict (409)           for example a model that is registered already
  │    └─ TooLarge (413)
  │         ├─ ImageTooLarge       bytes or pixels
  │         ├─ TextTooLong         characters, or tokens if truncation is off
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
  ├─ UnexpectedAnswer          an answer that is not TorchServe's: another program probably listens at the address
"""

from typing import Any


class TorchServeError(Exception):
    """Base class of all errors that the client raises.

    Attributes:
        message: Human-readable description of the error.
        code: HTTP status of the answer, or the status that fits the class; None without an answer.
        type: The server's name of the error; the class's name if the server gives none.
        request_id: `X-Request-Id` of the answer, or of the request; None if both lack it.
        retried: Whether the proxy has already sent the request a second time (`X-Retried` of the answer).
    """

    default_code: int | None = None
    request_id: str | None = None
    retried: bool = False

    def __init__(self, message: str, *, code: int | None = None, type: str | None = None) -> None:
        """Create an error.

        Args:
            message: Human-readable description of the error.
            code: HTTP status; the default of the class if None.
            type: The server's name of the error; the class's name if None.
        """
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code
        self.type = type or self.__class__.__name__

    def as_dict(self) -> dict[str, Any]:
        """Return code, type, message and, if known, request id, for JSON."""
        value = {"code": self.code, "type": self.type, "message": self.message}
        return value | ({"request_id": self.request_id} if self.request_id else {})


class ClientError(TorchServeError):
    """The request is invalid (4xx); sending it again does not help."""

    default_code = 400


class BadRequest(ClientError):
    """The server cannot read the request or rejects it (400)."""


class InvalidRequest(BadRequest):
    """The body, a field or a name is invalid."""


class InvalidParameter(BadRequest):
    """A parameter is unknown, of the wrong type or out of range."""


class InvalidImage(BadRequest):
    """The bytes are not a readable image."""


class InvalidText(BadRequest):
    """The text is empty or not UTF-8."""


class AccessDenied(ClientError):
    """The server denies access (401, 403)."""

    default_code = 403


class NotFound(ClientError):
    """The resource does not exist (404)."""

    default_code = 404


class ModelNotFound(NotFound):
    """The model or version does not exist (404)."""


class NotAllowed(ClientError):
    """The server does not offer this operation (405), for example because registering is disabled."""

    default_code = 405


class Conflict(ClientError):
    """The change conflicts with the state of the server (409); for example, the version is already registered."""

    default_code = 409


class TooLarge(ClientError):
    """The request is too large (413)."""

    default_code = 413


class ImageTooLarge(TooLarge):
    """The image has too many bytes or pixels (413)."""


class TextTooLong(TooLarge):
    """The text has too many characters, or too many tokens if truncation is off (413)."""


class TooManyItems(TooLarge):
    """The request has too many inputs (413)."""


class ServerError(TorchServeError):
    """The server failed or has no capacity (5xx)."""

    default_code = 500


class InternalError(ServerError):
    """The server failed (500), for example because a handler raised an error."""


class WorkerDied(ServerError):
    """The worker process ended while it had the request (500, 507)."""


class Overloaded(ServerError):
    """No worker, a full queue, or no time left for the request (503, 429); send it again later.

    Attributes:
        retry_after: Seconds that a proxy asks to wait; None if it does not.
    """

    default_code = 503
    retry_after: float | None = None


class OutOfMemory(ServerError):
    """The model has too little memory for the request (507)."""

    default_code = 507


class TransportError(TorchServeError):
    """No answer arrived."""


class Unavailable(TransportError):
    """The connection to the server failed or broke.

    Attributes:
        sent: False if the server certainly received nothing of the request.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        """Create an error.

        Args:
            message: Human-readable description of the error.
            sent: False if the server certainly received nothing of the request.
        """
        super().__init__(message)
        self.sent = sent


class Timeout(TransportError, TimeoutError):
    """The deadline passed before an answer arrived."""


class DeadlineExceeded(Timeout):
    """The deadline passed at the server, which did not begin the request (504)."""

    default_code = 504


class UnexpectedAnswer(TorchServeError):
    """The answer is not TorchServe's; another program probably listens at the address."""
