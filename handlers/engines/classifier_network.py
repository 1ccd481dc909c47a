"""A classifier as one torch module: a batch as the engines get it, to logits."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from handlers.engines import torchvision_network
from handlers.engines.loading import load_network
from handlers.vision.types import InputSpec


class ClassifierNetwork(torch.nn.Module):
    """Normalizes uint8 [n, height, width, 3], or takes float32 [n, 3, height, width]; gives float32 [n, labels].

    (level * scale - mean) / std is one multiplication and one addition for each channel, in float32. Pixels that come
    by rows of RGB are channels-last already, which is the order that convolutions are fastest in.
    """

    factor: torch.Tensor
    offset: torch.Tensor

    def __init__(self, network: torch.nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._dtype = next(network.parameters()).dtype
        self._normalizes = spec.normalization is not None
        if spec.normalization is not None:
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in spec.normalization[1:])
            self.register_buffer("factor", spec.normalization.scale / std, persistent=False)
            self.register_buffer("offset", -mean / std, persistent=False)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if self._normalizes:
            batch = torch.addcmul(self.offset, batch.permute(0, 3, 1, 2).float(), self.factor)
        pixels = batch.to(self._dtype, memory_format=torch.channels_last)
        logits: torch.Tensor = self.network(pixel_values=pixels).logits
        return logits.float()


def load_classifier(folder: Path, spec: InputSpec, dtype: torch.dtype) -> ClassifierNetwork:
    """Raises ValueError or RuntimeError for weights that do not fill the architecture; what transformers raises."""
    if torchvision_network.is_torchvision(folder):
        return ClassifierNetwork(torchvision_network.load(folder, dtype), spec).eval()
    from transformers import AutoModelForImageClassification

    return ClassifierNetwork(load_network(AutoModelForImageClassification, folder, dtype), spec).eval()


def blank(spec: InputSpec, count: int) -> torch.Tensor:
    """A batch of that many black images."""
    if spec.normalization is None:
        return torch.zeros(count, 3, spec.height, spec.width)
    return torch.zeros(count, spec.height, spec.width, 3, dtype=torch.uint8)


def export(network: ClassifierNetwork, spec: InputSpec, most: int) -> torch.export.ExportedProgram:
    """The network as a graph for batches of 1 to `most`. Raises what torch.export raises."""
    with torch.no_grad(), own_affairs():
        size = torch.export.Dim("batch", min=1, max=most)
        return torch.export.export(network, (blank(spec, 2),), dynamic_shapes=({0: size},))


@contextmanager
def own_affairs() -> Iterator[None]:
    """Without warnings: torch and those who build on it warn of their own deprecated parts while they trace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
