"""PyTorch for image classification: eager on a CPU, replayed CUDA graphs on a GPU."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from handlers.core.device import Device
from handlers.engines.classifier_network import blank, load_classifier
from handlers.engines.cuda_graph import CudaGraphRun, CudaGraphs
from handlers.engines.fixed_sizes import FixedSizes, sizes_up_to
from handlers.vision.types import InputSpec

logger = logging.getLogger(__name__)


class TorchClassifier:
    """Any network that transformers' AutoModelForImageClassification loads, for batches of at most `max_batch`."""

    name = "torch"

    def __init__(self, spec: InputSpec, max_batch: int) -> None:
        self._spec = spec
        self._max_batch = max_batch
        self._how: dict[str, Any] = {}

    @torch.inference_mode()
    def load(self, folder: Path, device: Device) -> None:
        """Raises ValueError for weights that do not fill the architecture, and what transformers raises."""
        network = load_classifier(folder, self._spec, device.dtype).to(device.torch_device)
        self._compute = self.prepare(network)
        self._device = device
        self._run: Callable[[torch.Tensor], torch.Tensor] = self._eager
        if device.torch_device.type == "cuda":
            try:
                self._run = recorded = self._record()
                self._how = {"cuda_graphs": recorded.sizes}
            except (
                Exception
            ) as error:  # a network with steps on the CPU, too little memory: slower, not wrong
                logger.warning("no CUDA graphs, computing eagerly", exc_info=error)
                self._how = {"cuda_graphs": f"none: {type(error).__name__}: {error}"[:200]}

    def prepare(self, network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """What executes the loaded network; here the network itself."""
        return network

    @torch.inference_mode()
    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """Pixels as the spec says, on the CPU or the engine's device, to logits [n, labels] in float32 on the CPU."""
        return self._run(batch)

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name, "precision": self._device.precision} | self._how

    def _eager(self, batch: torch.Tensor) -> torch.Tensor:
        return self._compute(batch.to(self._device.torch_device)).cpu()

    def _record(self) -> FixedSizes:
        graphs = CudaGraphs(self._device.torch_device)
        return FixedSizes(
            sizes_up_to(self._max_batch),
            lambda size: CudaGraphRun(self._compute, blank(self._spec, size), graphs),
        )
