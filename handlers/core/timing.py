"""How long a piece of work takes, for choices that are measured at load."""

import time
from collections.abc import Callable

MIN_SPEEDUP = 1.25
"""How many times faster the less usual way has to be; less could be noise, and workers should agree."""

_SECONDS = 0.3


def seconds_of(work: Callable[[], object]) -> float:
    """The fastest of the runs that fit into a fraction of a second, after one that is not counted."""
    work()
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while (start := time.perf_counter()) < end:
        work()
        best = min(best, time.perf_counter() - start)
    return best
