"""The request id in the worker's log: every warning and error that is logged for a request names it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_label: ContextVar[str] = ContextVar("request_label", default="")
_MAX_LABELS = 8


@contextmanager
def logging_for(*labels: str) -> Iterator[None]:
    """Name these requests in every warning and error that this thread logs within the block."""
    shown = ", ".join(labels[:_MAX_LABELS])
    token = _label.set(shown + (", ..." if len(labels) > _MAX_LABELS else ""))
    try:
        yield
    finally:
        _label.reset(token)


class RequestFilter(logging.Filter):
    """Puts the label in front of the message."""

    def filter(self, record: logging.LogRecord) -> bool:
        label = _label.get()
        if label and record.levelno >= logging.WARNING and not hasattr(record, "request"):
            try:
                message = record.getMessage()
            except (TypeError, ValueError):  # not for a filter to report: the handler does
                return True
            record.request = label
            record.msg, record.args = f"[{label}] {message}", ()
        return True


def install() -> None:
    """Add the filter to the handlers of the root logger, which write the worker's log; once."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(each, RequestFilter) for each in handler.filters):
            handler.addFilter(RequestFilter())
