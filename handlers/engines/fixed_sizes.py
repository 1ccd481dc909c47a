"""Batches of any size in runs of fixed sizes, as recorded GPU work needs them: padded, and put into fixed memory."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch


class FixedRun(Protocol):
    """Work that always computes the same number of rows."""

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """As many rows or fewer, on the host or the device, to their results on the host, which the next run takes
        back. The batch is the caller's again when it returns.
        """


def sizes_up_to(most: int) -> tuple[int, ...]:
    """1, 2, 4, 8, ... and `most` itself, so that less than half of any run is padding."""
    return (*(1 << power for power in range((most - 1).bit_length())), most)


class FixedSizes:
    """Runs a batch in the smallest of the fixed sizes that holds it."""

    def __init__(self, sizes: Sequence[int], make: Callable[[int], FixedRun]) -> None:
        """`make` is called for the largest size first: its memory is enough for the others."""
        made = {size: make(size) for size in sorted(sizes, reverse=True)}
        self._runs = dict(reversed(made.items()))

    @property
    def sizes(self) -> list[int]:
        return list(self._runs)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Rows of results on the host. Those computed beyond the batch hold what an earlier one left there; no row
        of a network's looks at another.

        Raises ValueError for more rows than the largest size.
        """
        count = len(batch)
        run = next((run for size, run in self._runs.items() if size >= count), None)
        if run is None:
            raise ValueError(f"a batch of {count}; at most {max(self._runs)} fit")
        return run.run(batch).clone()


def stage(batch: torch.Tensor, host: torch.Tensor, device: torch.Tensor) -> None:
    """Fill the first rows of `device`, where the work reads: by way of `host`, its pinned memory, from which a copy
    needs no second one in the driver; straight, where the batch is on the device already.
    """
    count = len(batch)
    if batch.device != device.device:
        batch = host[:count].copy_(batch)
    device[:count].copy_(batch, non_blocking=True)
