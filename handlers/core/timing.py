"""Measure durations, to choose between implementations when a model is loaded."""

import time
from collections.abc import Callable

MIN_SPEEDUP = 1.25
"""Minimum speedup for choosing an alternative. A smaller one could be noise, and all workers should choose alike."""

_MEASUREMENT_S = 0.3


def measure_seconds(work: Callable[[], object]) -> float:
    """Return the duration of the fastest run in seconds. Repeats `work` for 0.3 s after one warm-up run."""
    work()
    best, end = float("inf"), time.perf_counter() + _MEASUREMENT_S
    while (start := time.perf_counter()) < end:
        work()
        best = min(best, time.perf_counter() - start)
    return best
