"""Signals that end a run: what was started is ended first, and nothing interrupts that."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_all() -> None:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does."""
    for number in ENDING:
        signal.signal(number, _interrupt)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that would end the run do nothing meanwhile. Only in the main thread."""
    before = {number: signal.signal(number, _nothing) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Unlike SIG_IGN, programs that are started meanwhile do not inherit it."""
