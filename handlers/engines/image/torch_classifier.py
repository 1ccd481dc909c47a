"""The engine `torch` for image classification: eager on a CPU, CUDA graphs on a GPU."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from handlers.core.device import Device
from handlers.engines.cuda_graph import CudaGraphs
from handlers.engines.image.classifier_network import blank_batch, load_classifier, probe_batch
from handlers.engines.image.fixed_batch_runner import CudaGraphRun, FixedBatchRunner, sizes_up_to
from handlers.engines.image.types import InputSpec

logger = logging.getLogger(__name__)


class TorchClassifier:
    """The engine for any network of AutoModelForImageClassification, in batches of at most `max_batch` images."""

    name = "torch"

    def __init__(self, spec: InputSpec, max_batch: int) -> None:
        self._spec = spec
        self._max_batch = max_batch
        self._graphs: dict[str, Any] = {}

    @torch.inference_mode()
    def load(self, folder: Path, device: Device) -> None:
        """Load the weights, and capture CUDA graphs on a GPU.

        A network that overflows in fp16 for generated images is loaded in fp32.

        Raises:
            ValueError: The weights do not fit the architecture.
            RuntimeError: The weights do not fit an architecture of torchvision.
            OSError: A file of the model is missing or unreadable.
        """
        network = self._load_network(folder, device)
        if device.dtype == torch.float16 and not self._is_finite(network, device):
            logger.warning("the network's values are too large for fp16, computing in fp32")
            device = replace(device, dtype=torch.float32)
            network = self._load_network(folder, device)
        self._compute = self.prepare(network)
        self._device, self._folder = device, folder
        self._fp32_network: torch.nn.Module | None = None
        self._run: Callable[[torch.Tensor], torch.Tensor] = self._run_eagerly
        if device.torch_device.type == "cuda":
            try:
                self._run = runner = self._capture()
                self._graphs = {"cuda_graphs": runner.sizes}
            except Exception as error:  # steps on the CPU or too little memory: slower, but not wrong
                logger.warning("no CUDA graphs, computing eagerly", exc_info=error)
                self._graphs = {"cuda_graphs": f"none: {type(error).__name__}: {error}"[:200]}

    def _load_network(self, folder: Path, device: Device) -> torch.nn.Module:
        """Return the network on the device. On a GPU, each kernel that is left out saves the time of its launch."""
        is_gpu = device.torch_device.type == "cuda"
        network = load_classifier(folder, self._spec, device.dtype, folds_batch_norms=is_gpu)
        return network.to(device.torch_device)

    def _is_finite(self, network: torch.nn.Module, device: Device) -> bool:
        """Return True if the logits of random, black and white images are finite."""
        return bool(network(probe_batch(self._spec).to(device.torch_device)).isfinite().all())

    def prepare(self, network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the function that executes the loaded network: the network itself."""
        return network

    @torch.inference_mode()
    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch. A batch that overflows in fp16 is computed again in fp32.

        Args:
            batch: The pixels that the `InputSpec` describes, on the CPU or the device of the engine.

        Returns:
            float32 [n, labels] on the CPU.
        """
        logits = self._run(batch)
        if self._device.dtype == torch.float16 and not logits.isfinite().all():
            return self._run_in_fp32(batch)
        return logits

    def describe(self) -> dict[str, Any]:
        """Return the engine, the precision, and the CUDA graphs on a GPU."""
        return {"engine": self.name, "precision": self._device.precision} | self._graphs

    def _run_eagerly(self, batch: torch.Tensor) -> torch.Tensor:
        return self._compute(batch.to(self._device.torch_device)).cpu()

    def _run_in_fp32(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits of a network in fp32, which stays in memory for the next batch that overflows."""
        if self._fp32_network is None:
            logger.warning("an image's values are too large for fp16, computing its batch in fp32")
            network = load_classifier(self._folder, self._spec, torch.float32)
            self._fp32_network = network.to(self._device.torch_device)
        logits: torch.Tensor = self._fp32_network(batch.to(self._device.torch_device))
        return logits.cpu()

    def _capture(self) -> FixedBatchRunner:
        """Capture all sizes. The warm-up runs measure cuDNN's algorithms for each shape, and graphs keep the best."""
        graphs = CudaGraphs(self._device.torch_device)
        was_measuring, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        try:
            return FixedBatchRunner(
                sizes_up_to(self._max_batch),
                lambda size: CudaGraphRun(self._compute, blank_batch(self._spec, size), graphs),
            )
        finally:
            torch.backends.cudnn.benchmark = was_measuring
