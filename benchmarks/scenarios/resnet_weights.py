"""ResNet-50 weights at full size in the layout of the hub, made from the starter network, which is a fourth as wide.

Random weights would give almost every image the same label, so that labels could not be compared. Here each channel
of the starter is repeated four times, with a quarter of the weight for each input, which keeps the labels
(Net2WiderNet, Chen et al. 2016, https://arxiv.org/abs/1511.05641).
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.environments import fill_once
from torchserve_models.packing.models import LAYOUT

LABEL_COUNT = 1000
SEED = 7
LABEL_MARKER = "class "
"""Prefix of every label. An answer contains it once per label, in any format."""

_UNLIKELY_BIAS = -10.0
"""Bias of the labels that the starter does not have."""
_JITTER = 0.02
"""Relative noise of the weights, so that no two channels are equal."""
_PREPROCESSOR = {
    **{"image_processor_type": "ConvNextImageProcessor", "do_resize": True, "resample": 3},
    **{"size": {"shortest_edge": 224}, "crop_pct": 0.875, "do_rescale": True, "rescale_factor": 1 / 255},
    **{"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
}
"""Preprocessing of microsoft/resnet-50: bicubic resize to 256 on the shorter edge, then a center crop of 224."""


def write_resnet(folder: Path) -> Path:
    """Write the model to `folder`, unless it exists there, and return the folder."""
    starter = LAYOUT.starter("resnet-50")
    inputs = (starter / "model.safetensors").read_bytes() + Path(__file__).read_bytes()
    return fill_once(folder, inputs, partial(_write, starter=starter))


def _write(folder: Path, starter: Path) -> None:
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    small = ResNetForImageClassification.from_pretrained(starter)
    starter_labels = dict(small.config.id2label)
    labels = {i: f"{LABEL_MARKER}{i} {starter_labels.get(i, '')}".strip() for i in range(LABEL_COUNT)}
    label_ids = {label: index for index, label in labels.items()}
    network = ResNetForImageClassification(
        ResNetConfig(num_labels=LABEL_COUNT, id2label=labels, label2id=label_ids)
    )
    rng = torch.Generator().manual_seed(SEED)
    narrow = small.state_dict()
    wide = {
        name: _widen(narrow[name], tensor, rng, name.startswith("classifier"))
        for name, tensor in network.state_dict().items()
    }
    network.load_state_dict(wide)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2))


def _widen(narrow: Any, like: Any, rng: Any, is_head: bool) -> Any:
    """Return `narrow` with its channels repeated to the shape of `like`. Added labels get a low bias."""
    import torch

    wide = narrow
    if is_head:
        missing = like.shape[0] - wide.shape[0]
        fill = _UNLIKELY_BIAS if wide.dim() == 1 else 0.0
        wide = torch.cat([wide, wide.new_full((missing, *wide.shape[1:]), fill)])
    for axis in range(min(wide.dim(), 2)):
        times = like.shape[axis] // wide.shape[axis]
        wide = wide.repeat_interleave(times, axis)
        if axis == 1:
            wide = wide / times
    if wide.dim() > 1:
        wide = wide * (1 + _JITTER * torch.randn(wide.shape, generator=rng))
    return wide.to(like.dtype)
