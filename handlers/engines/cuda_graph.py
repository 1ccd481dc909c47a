"""One recorded run of a network on a GPU, for one batch size: replayed without a launch for each kernel."""

from collections.abc import Callable
from typing import Any

import torch

_WARM_UPS = 3


class CudaGraphRun:
    """A `FixedRun`. Its host tensors are pinned, so that copies need no second one inside the driver.

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
        self.inputs = blank.pin_memory()
        self._pixels = self.inputs.to(stream.device)
        self._stream = stream
        self._stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                logits = network(self._pixels)
        self._stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, stream=self._stream):
            self._logits = network(self._pixels)
        self.outputs = torch.empty(logits.shape, dtype=logits.dtype, pin_memory=True)

    def run(self) -> None:
        with torch.cuda.stream(self._stream):
            self._pixels.copy_(self.inputs, non_blocking=True)
            self._graph.replay()
            self.outputs.copy_(self._logits, non_blocking=True)
        self._stream.synchronize()
