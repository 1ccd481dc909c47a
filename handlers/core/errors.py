"""The one error tree: what a client is told, and with which status.

HandlerError
  ├─ BadRequest (400)
  │    ├─ InvalidRequest      the body or its fields
  │    ├─ InvalidParameter    a parameter: unknown, of the wrong type or out of range
  │    ├─ InvalidImage        bytes that are no readable image
  │    └─ InvalidText         text that is empty or not UTF-8
  ├─ TooLarge (413)
  │    ├─ ImageTooLarge       bytes or pixels
  │    ├─ TextTooLong         characters, or tokens where truncation is off
  │    └─ TooManyItems        inputs in one request
  ├─ InternalError (500)      our fault; the reason is in the worker's log, not in the answer
  ├─ Overloaded (503)         not computed before the worker's time for its batch was over
  ├─ DeadlineExceeded (504)   not begun: the client's time was over, or the client had left
  └─ OutOfMemory (507)        this item does not fit into memory

The status is on the class, as it is the class that decides it.
"""

from typing import Any, ClassVar


class HandlerError(Exception):
    """An error with an answer of its own. `message` is for the client: no traceback, no path."""

    code: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def type(self) -> str:
        return type(self).__name__

    def as_dict(self) -> dict[str, Any]:
        """TorchServe's own error shape; `error` is where the Open Inference Protocol and Hugging Face look."""
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
    """The archive's `model-config.yaml` is wrong: the worker does not start, and the log says why."""
