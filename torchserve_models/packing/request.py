"""The request to pack one archive."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Weights = Literal["auto", "pretrained", "starter"]
Report = Callable[[str], None]
"""A callback for messages to the user."""

TORCHVISION = "torchvision:"
"""Prefix of a torchvision architecture as a source."""

KEPT_ARCHIVES = 1
"""Default number of earlier archives of a model that stay in the store."""


@dataclass(frozen=True)
class StateDict:
    """The files of a source `torchvision:ARCHITECTURE`.

    Attributes:
        file: The weights, a .pth or .safetensors file.
        labels: The class labels, one per line or as JSON.
        transforms: Name of the torchvision weights whose image transforms are used.
    """

    file: Path
    labels: Path
    transforms: str | None = None


@dataclass(frozen=True)
class PackRequest:
    """The parameters of packing one archive.

    Attributes:
        name: Name of the model and of its archive.
        weights: Weights to use for a model of this repository: "auto", "pretrained" or "starter".
        source: Another source: a hub id, a folder, or `torchvision:ARCHITECTURE`. There is no fallback.
        store: Folder of the archive; by default the layout's model store.
        update: Whether to move the locked commit to the latest one of the hub's branch.
        calibrate: Folder with images for int8 calibration, "none" for no int8 network, or None to keep the int8
            network of the archive in the store.
        pickled: Whether a source without safetensors may have pickled weights.
        state_dict: The files of a `torchvision:ARCHITECTURE`.
        handler: Python file with a custom handler. `source` is then an optional folder with the files that it loads.
        labels: File with class labels that replace those of the model.
        keep: Number of earlier archives of the model that stay in the store as NAME-VERSION.mar.
    """

    name: str
    weights: Weights = "auto"
    source: str | Path | None = None
    store: Path | None = None
    update: bool = False
    calibrate: str | Path | None = None
    pickled: bool = False
    state_dict: StateDict | None = None
    handler: str | Path | None = None
    labels: Path | None = None
    keep: int = KEPT_ARCHIVES
