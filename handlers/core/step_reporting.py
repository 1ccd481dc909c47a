"""Report the progress of the running batch from an engine's loops to the pipeline.

An engine calls `report_step()` in its loops, for example after each decoding step. The pipeline then reports to the
supervisor that the worker is not stuck, and ends a batch that exceeds its time limit. `report_draft_tokens` is
for the metrics of speculative decoding.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_callback: Callable[[], None] | None = None
_draft_callback: Callable[[int, int], None] | None = None


def report_step() -> None:
    """Report that the running batch has advanced. Raises the callback's exceptions.

    Has no effect outside of a batch, for example during warm-up.
    """
    if _callback is not None:
        _callback()


def report_draft_tokens(num_drafted: int, num_accepted: int) -> None:
    """Report how many tokens were drafted and how many of them were accepted. Has no effect outside of a batch."""
    if _draft_callback is not None:
        _draft_callback(num_drafted, num_accepted)


@contextmanager
def step_callback(
    callback: Callable[[], None], draft_callback: Callable[[int, int], None] | None = None
) -> Iterator[None]:
    """Call the functions for what is reported in the `with` block. A worker runs one batch at a time.

    Args:
        callback: Called for each step.
        draft_callback: Called with the numbers of drafted and of accepted tokens.
    """
    global _callback, _draft_callback
    previous = _callback, _draft_callback
    _callback, _draft_callback = callback, draft_callback
    try:
        yield
    finally:
        _callback, _draft_callback = previous
