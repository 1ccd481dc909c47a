"""torchvision's classifiers from our own layout: config.json with the architecture, model.safetensors."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

MODEL_TYPE = "torchvision"
"""`model_type` of such a config.json; `architecture` is torchvision's name, `id2label` has the labels, and
`image_size` is there where the network takes no other."""

_FROM_TENSORFLOW = ("googlenet", "inception_v3")
"""Their weights want pixels from -1 to 1, which the network itself makes of torchvision's usual ones; and they have
branches for training alone."""
_TRAINING_ALONE = ("aux1.", "aux2.", "AuxLogits.")


class Logits(NamedTuple):
    logits: torch.Tensor


class TorchvisionNetwork(torch.nn.Module):
    """Called as transformers' classifiers are."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor) -> Logits:
        return Logits(self.network(pixel_values))


def image_size(architecture: str, weights: Mapping[str, torch.Tensor]) -> int | None:
    """Height and width, in pixels, that a vit_* was trained for, by its positions: one a patch and one for the class.
    None where the network takes images of any size, or the weights lack these.
    """
    positions, patches = weights.get("encoder.pos_embedding"), weights.get("conv_proj.weight")
    if not architecture.startswith("vit_") or positions is None or patches is None:
        return None
    if (positions.ndim, patches.ndim) != (3, 4):
        return None
    return math.isqrt(max(positions.shape[1] - 1, 0)) * patches.shape[-1]


def build(architecture: str, labels: int, size: int | None = None) -> torch.nn.Module:
    """The network with random weights; `size` is what `image_size` gives.

    Raises ValueError for a name that torchvision does not know, AssertionError for a size that is not whole patches.
    """
    from torchvision.models import get_model

    options: dict[str, Any] = {} if size is None else {"image_size": size}
    if architecture in _FROM_TENSORFLOW:
        options = {"aux_logits": False, "transform_input": True, "init_weights": False}
    network: torch.nn.Module = get_model(architecture, weights=None, num_classes=labels, **options)
    return network


def fill(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Raises RuntimeError, which lists what is missing, too much or of another shape."""
    own = network.state_dict()
    wanted = type(own)(
        (name, value) for name, value in weights.items() if not name.startswith(_TRAINING_ALONE)
    )
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):  # old files lack it, and only training uses it
            wanted.setdefault(name, value)
    # The layout's version of each layer, which files without it would be taken for the oldest.
    wanted._metadata = getattr(weights, "_metadata", None) or own._metadata  # type: ignore[attr-defined]
    network.load_state_dict(wanted)


def is_torchvision(folder: Path) -> bool:
    config = folder / "config.json"
    return config.exists() and json.loads(config.read_text()).get("model_type") == MODEL_TYPE


def load(folder: Path, dtype: torch.dtype) -> TorchvisionNetwork:
    """A network in evaluation mode. Raises RuntimeError for weights that do not fill the architecture."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    network = build(config["architecture"], len(config["id2label"]), config.get("image_size"))
    fill(network, load_file(folder / "model.safetensors"))
    return TorchvisionNetwork(network.to(dtype)).eval()
