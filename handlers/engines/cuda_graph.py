"""One recorded run of a network on a GPU, for one batch size: replayed without a launch for each kernel."""

from collections.abc import Callable
from typing import Any

import torch

from handlers.engines.fixed_sizes import stage

_WARM_UPS = 3


class CudaGraphRun:
    """A `FixedRun`, with pinned memory on the host.

    Recording follows PyTorch's notes on CUDA graphs: warm-up runs on a side stream, then one under capture. `stream`
    and `pool` are shared by the graphs of one network, which never run at the same time: a pool gives memory again to
    the stream alone that it was freed on.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        blank: torch.Tensor,
        stream: torch.cuda.Stream,
        pool: Any,
    ) -> None:
        self._staging = blank.pin_memory()
        self._pixels = self._staging.to(stream.device)
        self._stream = stream
        self._stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                logits = network(self._pixels)
        self._stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, stream=self._stream):
            self._logits = network(self._pixels)
        self._results = torch.empty(logits.shape, dtype=logits.dtype, pin_memory=True)

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        results = self._results[: len(batch)]
        # A batch that is on the GPU may still be in the making there.
        self._stream.wait_stream(torch.cuda.current_stream(self._pixels.device))
        with torch.cuda.stream(self._stream):
            stage(batch, self._staging, self._pixels)
            self._graph.replay()
            results.copy_(self._logits[: len(batch)], non_blocking=True)
        self._stream.synchronize()
        return results
