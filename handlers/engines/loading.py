"""Loads a network from a folder in the hub's layout: safetensors alone, no code, every weight in its place."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def load_network(auto_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A network in evaluation mode. Raises ValueError for weights that do not fill the architecture.

    `auto_class` is one of transformers' AutoModel classes, which would fill what is missing with random numbers.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    network, report = auto_class.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **_timm(folder),
    )
    if keys := unfilled(network, report):
        raise ValueError(
            f"the weights do not fit {type(network).__name__}: {len(keys)} are missing, such as {keys[0]}"
        )
    for module in network.modules():
        if config := getattr(module, "config", None):
            config.return_dict = True  # some are saved without, for torch.jit, and would answer with tuples
    return network.eval()


def unfilled(network: Any, report: Mapping[str, Any]) -> list[str]:
    """What transformers filled with random numbers: all that its report calls missing or of another shape, but for
    sinusoidal positions, which it computes. Older files, such as google/pegasus-xsum's, do not hold those.
    """
    missing = (
        key
        for key in report["missing_keys"]
        if not hasattr(network.get_submodule(key.rpartition(".")[0]), "create_weight")
    )
    return sorted(str(key) for key in (*missing, *report["mismatched_keys"]))


def _timm(folder: Path) -> dict[str, Any]:
    """What loading a model in timm's format takes beside: newer versions write the number of labels into its
    `model_args` too, where transformers trips over it.
    """
    path = folder / "config.json"
    if not path.exists() or "pretrained_cfg" not in json.loads(path.read_text()):
        return {}
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_args:
        config.model_args.pop("num_classes", None)
    return {"config": config}
