"""Batches of any size as runs of a few fixed sizes, which captured GPU work needs."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from handlers.engines.cuda_graph import CudaGraphs


class FixedSizeRun(Protocol):
    """A computation with a fixed number of rows."""

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the results of a batch with at most the fixed number of rows.

        Args:
            batch: Rows in memory of the host or the device. The caller may change it afterwards.

        Returns:
            The results in memory of the host, which the next run overwrites.
        """


def sizes_up_to(max_size: int) -> tuple[int, ...]:
    """Return 1, 2, 4, 8, ... and `max_size` itself, so that less than half of each run is padding."""
    return (*(1 << power for power in range((max_size - 1).bit_length())), max_size)


class FixedBatchRunner:
    """A runner that executes a batch in the smallest of the fixed sizes that holds it."""

    def __init__(self, sizes: Sequence[int], create: Callable[[int], FixedSizeRun]) -> None:
        """Call `create` for each size, the largest first, because its memory is enough for the others."""
        runs = {size: create(size) for size in sorted(sizes, reverse=True)}
        self._runs = dict(reversed(runs.items()))

    @property
    def sizes(self) -> list[int]:
        """The sizes in ascending order."""
        return list(self._runs)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the results of the rows of `batch` in memory of the host.

        Padding rows contain values of an earlier batch. They have no effect, because the rows of a network do not
        depend on each other.

        Raises:
            ValueError: The batch has more rows than the largest size.
        """
        count = len(batch)
        run = next((run for size, run in self._runs.items() if size >= count), None)
        if run is None:
            raise ValueError(f"a batch of {count} rows exceeds the maximum of {max(self._runs)}")
        return run.run(batch).clone()


def copy_to_device(batch: torch.Tensor, pinned: torch.Tensor, target: torch.Tensor) -> None:
    """Copy a batch into the first rows of `target`.

    A batch on the host is first copied to `pinned`, from which the driver copies it directly.
    """
    count = len(batch)
    if batch.device != target.device:
        batch = pinned[:count].copy_(batch)
    target[:count].copy_(batch, non_blocking=True)


class CudaGraphRun:
    """A `FixedSizeRun` of a network as a CUDA graph, with pinned memory on the host."""

    def __init__(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        blank_batch: torch.Tensor,
        graphs: CudaGraphs,
    ) -> None:
        """Capture the network for batches with the shape of `blank_batch`."""
        self._stream = graphs.stream
        self._pinned_pixels = blank_batch.pin_memory()
        self._pixels = self._pinned_pixels.to(self._stream.device)
        self._graph, self._logits = graphs.capture(lambda: network(self._pixels))
        self._results = torch.empty(self._logits.shape, dtype=self._logits.dtype, pin_memory=True)

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """See `FixedSizeRun.run`."""
        results = self._results[: len(batch)]
        # A batch on the GPU may not be computed yet.
        self._stream.wait_stream(torch.cuda.current_stream(self._pixels.device))
        with torch.cuda.stream(self._stream):
            copy_to_device(batch, self._pinned_pixels, self._pixels)
            self._graph.replay()
            results.copy_(self._logits[: len(batch)], non_blocking=True)
        self._stream.synchronize()
        return results
