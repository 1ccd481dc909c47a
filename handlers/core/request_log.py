"""Add the request's label to all warnings and errors that a worker logs for a request."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_label: ContextVar[str] = ContextVar("request_label", default="")
_MAX_LABELS = 8


@contextmanager
def log_context(*labels: str) -> Iterator[None]:
    """Add these labels to all warnings and errors that this thread logs in the `with` block."""
    shown_labels = ", ".join(labels[:_MAX_LABELS])
    token = _label.set(shown_labels + (", ..." if len(labels) > _MAX_LABELS else ""))
    try:
        yield
    finally:
        _label.reset(token)


class RequestFilter(logging.Filter):
    """A logging filter that inserts the request's label before the message."""

    def filter(self, record: logging.LogRecord) -> bool:
        label = _label.get()
        if label and record.levelno >= logging.WARNING and not hasattr(record, "request"):
            try:
                message = record.getMessage()
            except (TypeError, ValueError):  # the logging handler reports this
                return True
            record.request = label
            record.msg, record.args = f"[{label}] {message}", ()
        return True


def install() -> None:
    """Add the filter to the root logger's handlers, which write the worker's log. Further calls have no effect."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(log_filter, RequestFilter) for log_filter in handler.filters):
            handler.addFilter(RequestFilter())
