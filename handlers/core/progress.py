"""Progress reports of the running batch, from the loops of the engines to the handler.

An engine calls `report_step()` in its loops, for example after each decoding step. The handler decides what that
means: it tells the supervisor that the worker is not stuck, and it ends work that exceeds the time for its batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_callback: Callable[[], None] | None = None


def report_step() -> None:
    """Report that the running batch has moved on. Raises what the handler's callback raises.

    Does nothing outside of a batch, for example during the warm-up.
    """
    if _callback is not None:
        _callback()


@contextmanager
def reporting_to(callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` at each step that is reported within the block. A worker runs one batch at a time."""
    global _callback
    previous, _callback = _callback, callback
    try:
        yield
    finally:
        _callback = previous
