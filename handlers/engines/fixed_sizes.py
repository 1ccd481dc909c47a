"""Batches of any size in runs of fixed sizes, as recorded GPU work needs them: padded, and staged in fixed memory."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch


class FixedRun(Protocol):
    """Work on exactly as many rows as its tensors have, both of them on the host."""

    inputs: torch.Tensor
    outputs: torch.Tensor

    def run(self) -> None:
        """Compute `outputs` from `inputs`; both are the caller's again when it returns."""


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
        """Rows beyond the batch hold what an earlier one left there; no row of a network's looks at another.

        Raises ValueError for more rows than the largest size.
        """
        count = len(batch)
        run = next((run for size, run in self._runs.items() if size >= count), None)
        if run is None:
            raise ValueError(f"a batch of {count}; at most {max(self._runs)} fit")
        run.inputs[:count].copy_(batch)
        run.run()
        return run.outputs[:count].clone()
