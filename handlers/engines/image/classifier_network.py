"""A classifier as one torch module, which computes logits from the input batch of an engine."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from handlers.engines.image import torchvision_network
from handlers.engines.image.batch_norm_folding import fold_batch_norms
from handlers.engines.image.types import InputSpec
from handlers.engines.loading import load_network


class ClassifierNetwork(torch.nn.Module):
    """A network that computes float32 logits [n, labels] from a batch that an `InputSpec` describes.

    The normalization (level * scale - mean) / std is one multiplication and one addition for each channel, in
    float32. Batches [n, height, width, 3] are already in channels-last order, in which convolutions are fastest.
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


def load_classifier(
    folder: Path, spec: InputSpec, dtype: torch.dtype, *, folds_batch_norms: bool = False
) -> ClassifierNetwork:
    """Return the network of a folder in the hub's layout or in that of `torchvision_network`.

    Args:
        folder: The model.
        spec: The input of the network.
        dtype: The type of the weights.
        folds_batch_norms: Fold batch norms into convolutions, in float32 and on the CPU.

    Raises:
        ValueError: The weights do not fit the architecture.
        RuntimeError: The weights do not fit an architecture of torchvision.
        OSError: A file of the model is missing or unreadable.
    """
    if folds_batch_norms:
        network = fold_batch_norms(load_classifier(folder, spec, torch.float32), probe_batch(spec))
        return ClassifierNetwork(network.get_submodule("network").to(dtype), spec).eval()
    if torchvision_network.is_torchvision(folder):
        return ClassifierNetwork(torchvision_network.load(folder, dtype), spec).eval()
    from transformers import AutoModelForImageClassification

    return ClassifierNetwork(load_network(AutoModelForImageClassification, folder, dtype), spec).eval()


def blank_batch(spec: InputSpec, count: int) -> torch.Tensor:
    """Return a batch of `count` black images."""
    if spec.normalization is None:
        return torch.zeros(count, 3, spec.height, spec.width)
    return torch.zeros(count, spec.height, spec.width, 3, dtype=torch.uint8)


def probe_batch(spec: InputSpec) -> torch.Tensor:
    """Return a batch of a random, a black and a white image."""
    batch = blank_batch(spec, 3)
    levels = torch.rand(batch.shape[1:], generator=torch.Generator().manual_seed(0))
    if batch.dtype == torch.uint8:
        batch[0], batch[2] = levels * 255, 255
    else:  # normalized by the image processor to about -2 to 2
        batch[0], batch[1], batch[2] = levels * 4 - 2, -2, 2
    return batch


def export(network: ClassifierNetwork, spec: InputSpec, max_batch: int) -> torch.export.ExportedProgram:
    """Return the network as a graph for batches of 1 to `max_batch`. Raises the errors of torch.export."""
    with torch.no_grad(), ignore_warnings():
        size = torch.export.Dim("batch", min=1, max=max_batch)
        return torch.export.export(network, (blank_batch(spec, 2),), dynamic_shapes=({0: size},))


@contextmanager
def ignore_warnings() -> Iterator[None]:
    """Suppress warnings, because torch and OpenVINO call deprecated functions while they trace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
