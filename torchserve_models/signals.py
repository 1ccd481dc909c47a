"""Signals that end a command: SIGINT (Ctrl-C), SIGTERM and SIGHUP."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def raise_interrupt() -> None:
    """Raise KeyboardInterrupt."""
    raise KeyboardInterrupt


def handle_termination(action: Callable[[], object] = raise_interrupt) -> None:
    """Call `action` in the main thread on every terminating signal.

    Signals that are ignored stay ignored, as nohup requires.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        action()

    for number in TERMINATING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


@contextmanager
def ignore_termination() -> Iterator[None]:
    """Ignore terminating signals, for a cleanup. In contrast to SIG_IGN, child processes do not inherit it."""
    handlers = {number: signal.getsignal(number) for number in TERMINATING_SIGNALS}
    handle_termination(lambda: None)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
