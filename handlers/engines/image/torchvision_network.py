"""torchvision's classifiers in a layout of this project: config.json with the architecture, model.safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

MODEL_TYPE = "torchvision"
"""`model_type` of config.json in this layout. `architecture` is torchvision's name, `id2label` has the labels, and
`image_size` is set if the network takes images of one size only.
"""

_FROM_TENSORFLOW = ("googlenet", "inception_v3")
"""Architectures whose weights expect pixels from -1 to 1. The network converts torchvision's usual pixels.

These architectures also have branches that only training uses.
"""
_TRAINING_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")


class Logits(NamedTuple):
    """The output of a classifier, with the attribute that transformers' outputs have."""

    logits: torch.Tensor


class TorchvisionNetwork(torch.nn.Module):
    """A classifier of torchvision with the interface of those of transformers."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor) -> Logits:
        return Logits(self.network(pixel_values))


def build(architecture: str, labels: int, size: int | None = None) -> torch.nn.Module:
    """Return a network with random weights.

    Args:
        architecture: torchvision's name.
        labels: The number of labels.
        size: Height and width of the images, in pixels, for an architecture that takes only one size.

    Raises:
        ValueError: torchvision has no such architecture.
        AssertionError: The size is not a multiple of the patch size.
    """
    from torchvision.models import get_model

    options: dict[str, Any] = {} if size is None else {"image_size": size}
    if architecture in _FROM_TENSORFLOW:
        options = {"aux_logits": False, "transform_input": True, "init_weights": False}
    network: torch.nn.Module = get_model(architecture, weights=None, num_classes=labels, **options)
    return network


def fill(network: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load weights into a network, except those that only training uses.

    Raises:
        RuntimeError: Weights are missing, unexpected or of another shape; the message lists them.
    """
    current = network.state_dict()
    state_dict = type(current)(
        (name, value) for name, value in weights.items() if not name.startswith(_TRAINING_PREFIXES)
    )
    for name, value in current.items():
        if name.endswith("num_batches_tracked"):  # missing in old files, and only used in training
            state_dict.setdefault(name, value)
    # The version of each layer's layout. torch assumes the oldest one for files that do not have it.
    state_dict._metadata = getattr(weights, "_metadata", None) or current._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state_dict)


def is_torchvision(folder: Path) -> bool:
    """Return whether a folder has this layout."""
    config = folder / "config.json"
    return config.exists() and json.loads(config.read_text()).get("model_type") == MODEL_TYPE


def load(folder: Path, dtype: torch.dtype) -> TorchvisionNetwork:
    """Return a network in evaluation mode.

    Raises:
        RuntimeError: The weights do not fit the architecture.
    """
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    network = build(config["architecture"], len(config["id2label"]), config.get("image_size"))
    fill(network, load_file(folder / "model.safetensors"))
    return TorchvisionNetwork(network.to(dtype)).eval()
