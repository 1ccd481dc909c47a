"""Errors that are returned to clients, each with its HTTP status.

HandlerError
  ├─ BadRequest (400)
  │    ├─ InvalidRequest      the body or its fields
  │    ├─ InvalidParameter    a parameter: unknown, of the wrong type or out of range
  │    ├─ InvalidImage        bytes that are not a readable image
  │    └─ InvalidText         text that is empty or not UTF-8
  ├─ TooLarge (413)
  │    ├─ ImageTooLarge       bytes or pixels
  │    ├─ TextTooLong         characters, or tokens if truncation is off
  │    └─ TooManyItems        inputs in one request
  ├─ InternalError (500)      an unexpected exception; the worker's log has the reason
  ├─ Overloaded (503)         not computed within the worker's time for the batch
  ├─ DeadlineExceeded (504)   not computed: the deadline has passed, or the client has disconnected
  └─ OutOfMemory (507)        this item does not fit into memory
"""

from typing import Any, ClassVar


class HandlerError(Exception):
    """Base class of the errors that clients receive. `message` contains no traceback and no path."""

    code: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def type(self) -> str:
        return type(self).__name__

    def as_dict(self) -> dict[str, Any]:
        """Return TorchServe's error object, plus `error` for Open Inference Protocol and Hugging Face clients."""
        return {"code": self.code, "type": self.type, "message": self.message, "error": self.message}


class BadRequest(HandlerError):
    code = 400


class InvalidRequest(BadRequest):
    pass


class InvalidParameter(BadRequest):
    pass


class InvalidImage(BadRequest):
    pass


class InvalidText(BadRequest):
    pass


class TooLarge(HandlerError):
    code = 413


class ImageTooLarge(TooLarge):
    pass


class TextTooLong(TooLarge):
    pass


class TooManyItems(TooLarge):
    pass


class InternalError(HandlerError):
    code = 500


class Overloaded(HandlerError):
    code = 503


class DeadlineExceeded(HandlerError):
    code = 504


class OutOfMemory(HandlerError):
    code = 507


class ConfigurationError(Exception):
    """An invalid configuration or model in the archive. The worker does not start; the log has the reason."""
