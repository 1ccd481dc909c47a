"""Add the level, and the request's label, to all warnings and errors that a worker logs.

TorchServe logs each line that a worker prints as INFO, without a timestamp or level of the worker. The formatter
therefore puts the level and the label in front of each line, also of tracebacks. serving/log4j2.xml moves the level
to its place in workers.log.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_label: ContextVar[str] = ContextVar("request_label", default="")
_MAX_LABELS = 8
_LEVELS = {logging.WARNING: "WARN ", logging.ERROR: "ERROR", logging.CRITICAL: "FATAL"}
"""Names of the levels in log4j2.xml, with the width of its pattern."""


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


class LevelFormatter(logging.Formatter):
    """A formatter that begins each line of warnings and errors with the level and the request's label.

    Other records are unchanged, because TorchServe reads metrics and the worker's state from them.
    """

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        level = next((name for number, name in reversed(_LEVELS.items()) if record.levelno >= number), None)
        if level is None:
            return text
        label = getattr(record, "request", "")
        first, *others = text.splitlines() or [""]
        return "\n".join(
            [f"[{level}] {first}", *(f"[{level}] {label and f'[{label}] '}{line}" for line in others)]
        )


def install() -> None:
    """Add the filter to the root logger's handlers, and the formatter to those that write to TorchServe's log.

    Further calls have no effect.
    """
    for handler in logging.getLogger().handlers:
        if not any(isinstance(log_filter, RequestFilter) for log_filter in handler.filters):
            handler.addFilter(RequestFilter())
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setFormatter(LevelFormatter())
