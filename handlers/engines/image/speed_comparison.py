"""A short measurement of two engines on this machine."""

import time
from collections.abc import Sequence

import torch

from handlers.engines.base import Engine

TensorEngine = Engine[torch.Tensor, torch.Tensor]

MAX_ROUNDS = 7
MAX_SECONDS = 0.3
"""Time for each batch, after which no further round begins once both engines were timed."""

SLOW_IMAGE_SECONDS = 0.1
"""Time for one image above which an engine is slow: its warm-up is timed, and only the first batch is measured."""


def measure_speedup(
    engine: TensorEngine, other: TensorEngine, batches: Sequence[torch.Tensor]
) -> list[float]:
    """Return for each batch how many times as fast as `other` the engine is.

    CPU time is compared, because several workers often start at once and take the cores from each other. The engines
    take turns, and the shortest of several runs counts, so that other disturbances have little effect. Both engines
    must use the same number of threads, and nothing else in this process may compute at the same time.

    Args:
        engine: The first engine.
        other: The second engine.
        batches: One or more batches, the smallest first.

    Returns:
        The speedups, only that of the first batch if an engine is slow.
    """
    speedups: list[float] = []
    for batch in batches:
        (engine_s, other_s), is_slow = _measure((engine, other), batch)
        speedups.append(other_s / engine_s)
        if is_slow:
            break
    return speedups


def _measure(engines: Sequence[TensorEngine], batch: torch.Tensor) -> tuple[list[float], bool]:
    """Return the shortest CPU time of each engine in seconds, and whether one of them is slow."""
    cpu_s, wall_s = [float("inf")] * len(engines), [float("inf")] * len(engines)
    end = time.monotonic() + MAX_SECONDS
    for finished in range(1 + MAX_ROUNDS):
        for index, engine in enumerate(engines):
            started, cpu_started = time.monotonic(), time.process_time()
            engine.run(batch)
            cpu_s[index] = min(cpu_s[index], time.process_time() - cpu_started)
            wall_s[index] = min(wall_s[index], time.monotonic() - started)
        # The first run of a size is slower. Its time is only used if the engine is too slow for another run.
        is_slow = max(wall_s) > SLOW_IMAGE_SECONDS * len(batch)
        if time.monotonic() > end and (finished >= 1 or is_slow):
            break
    return cpu_s, is_slow
