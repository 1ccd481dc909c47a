"""ResNet-50 at full size in the hub's layout: the starter's trained network, made four times as wide.

Random weights would have the same arithmetic, but answer nearly every image alike, and a comparison of their labels
would say nothing. So each channel of the starter stands here four times, with a quarter of the weight for each input
(Net2WiderNet, Chen et al. 2016, https://arxiv.org/abs/1511.05641): the same answers, from a network of full size.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchserve_models.packing.models import LAYOUT

LABELS = 1000
SEED = 7
MARKER = "class "
"""How every label begins: whatever the form of an answer, it says this once for each label."""

_RARE = -10.0  # the bias of labels that the starter does not know: never among its likely ones
_JITTER = 0.02  # of a weight's size, so that no two channels are quite alike
_PREPROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "crop_pct": 0.875,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
"""As microsoft/resnet-50 has it: bicubic to 256 on the shorter edge, the middle 224."""


def full_size(folder: Path, starter: Path | None = None) -> Path:
    """Writes the model to `folder`, unless this one is there already, and returns it."""
    starter = starter or LAYOUT.starter("resnet-50")
    made_of = (starter / "model.safetensors").read_bytes() + Path(__file__).read_bytes()
    return made_once(folder, made_of, lambda unfinished: _make(unfinished, starter))


def made_once(folder: Path, made_of: bytes, make: Callable[[Path], None]) -> Path:
    """`folder` as `make` writes it, whole or not at all; again only where it was made of something else."""
    stamp = folder.with_name(f"{folder.name}.stamp")
    digest = hashlib.sha256(made_of).hexdigest()
    if (folder / "model.safetensors").exists() and stamp.exists() and stamp.read_text() == digest:
        return folder
    unfinished = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    make(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    stamp.write_text(digest)
    return folder


def _make(folder: Path, starter: Path) -> None:
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification
    from transformers.utils import logging

    logging.disable_progress_bar()

    small = ResNetForImageClassification.from_pretrained(starter)
    known = dict(small.config.id2label)
    names = {index: f"{MARKER}{index} {known.get(index, '')}".strip() for index in range(LABELS)}
    config = ResNetConfig(num_labels=LABELS, id2label=names, label2id={name: i for i, name in names.items()})
    network = ResNetForImageClassification(config)
    random = torch.Generator().manual_seed(SEED)
    thin = small.state_dict()
    wide = {
        name: _widen(thin[name], value, random, name.startswith("classifier"))
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(wide)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2))


def _widen(thin: Any, shape_of: Any, random: Any, head: bool) -> Any:
    """`thin` with every channel repeated to the shape of `shape_of`; further labels of the head are never likely."""
    import torch

    wide = thin
    if head:
        bias = wide.dim() == 1
        missing = shape_of.shape[0] - wide.shape[0]
        wide = torch.cat([wide, wide.new_full((missing, *wide.shape[1:]), _RARE if bias else 0.0)])
    for axis in range(min(wide.dim(), 2)):
        times = shape_of.shape[axis] // wide.shape[axis]
        wide = wide.repeat_interleave(times, axis)
        if axis == 1:
            wide = wide / times
    if wide.dim() > 1:
        wide = wide * (1 + _JITTER * torch.randn(wide.shape, generator=random))
    return wide.to(shape_of.dtype)
