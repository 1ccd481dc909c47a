"""Work recorded on a GPU as a CUDA graph, and replayed without a launch for each kernel."""

from collections.abc import Callable

import torch

from handlers.engines.fixed_sizes import stage

_WARM_UPS = 3

Work = Callable[[], torch.Tensor]
"""On memory that stays."""


class CudaGraphs:
    """Graphs that share a stream and a pool of memory, and never run at the same time: a pool gives memory again to
    the stream alone that it was freed on.
    """

    def __init__(self, device: torch.device) -> None:
        with torch.cuda.device(device):
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Work) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """What replays `work`, and where its result then lies.

        As PyTorch's notes on CUDA graphs have it: warm-up runs on a side stream, then one under capture.
        """
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        try:
            # Around the capture too: where that fails, it does not put back the stream that was current before.
            with torch.cuda.device(self.stream.device), torch.cuda.stream(self.stream):
                for _ in range(_WARM_UPS):
                    work()
                self.stream.synchronize()
                with torch.cuda.graph(graph, pool=self._pool, stream=self.stream):
                    result = work()
        finally:
            current.wait_stream(self.stream)  # work that is done eagerly instead is in the same memory
        return graph, result

    def replaying(self, work: Work) -> Work:
        """What replays `work`; its result is overwritten each time."""
        graph, result = self.record(work)

        def replay() -> torch.Tensor:
            graph.replay()
            return result

        return replay


class CudaGraphRun:
    """A `FixedRun` of a network, for one batch size, with pinned memory on the host."""

    def __init__(
        self, network: Callable[[torch.Tensor], torch.Tensor], blank: torch.Tensor, graphs: CudaGraphs
    ) -> None:
        self._stream = graphs.stream
        self._staging = blank.pin_memory()
        self._pixels = self._staging.to(self._stream.device)
        self._graph, self._logits = graphs.record(lambda: network(self._pixels))
        self._results = torch.empty(self._logits.shape, dtype=self._logits.dtype, pin_memory=True)

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
