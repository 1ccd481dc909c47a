"""CUDA graphs: GPU work that is captured once and replayed without launching each of its kernels."""

from collections.abc import Callable

import torch

_WARM_UP_RUNS = 3

GraphFunction = Callable[[], torch.Tensor]
"""A function that reads and writes the same memory at every call."""


class CudaGraphs:
    """CUDA graphs that share a stream and a memory pool.

    Only one graph may run at a time. The graphs share a stream because a pool reuses memory only on the stream on
    which it was freed.
    """

    def __init__(self, device: torch.device) -> None:
        with torch.cuda.device(device):
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()

    def capture(self, function: GraphFunction) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Return a graph that replays `function`, and the tensor that holds its result afterwards.

        Follows PyTorch's notes on CUDA graphs: warm-up runs on a side stream, then one run under capture.
        """
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        try:
            # The capture is inside this context, because a failed capture does not restore the current stream.
            with torch.cuda.device(self.stream.device), torch.cuda.stream(self.stream):
                for _ in range(_WARM_UP_RUNS):
                    function()
                self.stream.synchronize()
                with torch.cuda.graph(graph, pool=self._pool, stream=self.stream):
                    result = function()
        finally:
            current.wait_stream(self.stream)  # eager work that follows a failure uses the same memory
        return graph, result

    def capture_replay(self, function: GraphFunction) -> GraphFunction:
        """Return a function that replays `function`. Each call overwrites the previous result."""
        graph, result = self.capture(function)

        def replay() -> torch.Tensor:
            graph.replay()
            return result

        return replay
