"""PyTorch eager for image classification."""

from pathlib import Path
from typing import Any

import torch

from handlers.core.device import Device
from handlers.engines.loading import load_network


class TorchClassifier:
    """Any network that transformers' AutoModelForImageClassification loads, in channels-last order."""

    name = "torch"

    def load(self, folder: Path, device: Device) -> None:
        from transformers import AutoModelForImageClassification

        network = load_network(AutoModelForImageClassification, folder, device.dtype)
        self._device = device
        self._network: Any = network.to(device.torch_device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """Pixels [n, 3, height, width] to logits [n, labels] in float32 on the CPU."""
        pixels = batch.to(self._device.torch_device, self._device.dtype, memory_format=torch.channels_last)
        logits: torch.Tensor = self._network(pixel_values=pixels).logits
        return logits.float().cpu()

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name}
