"""Loading of a network from a folder in the hub's layout: only from safetensors, and without code from the folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def load_network(auto_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Return a network in evaluation mode.

    Args:
        auto_class: One of transformers' AutoModel classes, which fill missing weights with random numbers.
        folder: The model.
        dtype: The type of the weights.

    Raises:
        ValueError: Weights are missing or have another shape.
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
        **_timm_options(folder),
    )
    if keys := find_missing_weights(network, report):
        raise ValueError(
            f"the weights do not fit {type(network).__name__}: {len(keys)} are missing or have another shape, "
            f"such as {keys[0]}"
        )
    for module in network.modules():
        if config := getattr(module, "config", None):
            config.return_dict = (
                True  # some models are saved without it, for torch.jit, and would return tuples
            )
    return network.eval()


def find_missing_weights(network: Any, report: Mapping[str, Any]) -> list[str]:
    """Return the names of the weights that transformers filled with random numbers, sorted.

    These are the weights that its loading report lists as missing or of another shape. Sinusoidal position embeddings
    are excluded because transformers computes them. Older files, such as those of google/pegasus-xsum, lack them.
    """
    missing = (
        key
        for key in report["missing_keys"]
        if not hasattr(network.get_submodule(key.rpartition(".")[0]), "create_weight")
    )
    return sorted(str(key) for key in (*missing, *report["mismatched_keys"]))


def _timm_options(folder: Path) -> dict[str, Any]:
    """Return the additional arguments for loading a model in timm's format.

    Newer versions of timm also write the number of labels into `model_args`; transformers would pass it twice.
    """
    path = folder / "config.json"
    if not path.exists() or "pretrained_cfg" not in json.loads(path.read_text()):
        return {}
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_args:
        config.model_args.pop("num_classes", None)
    return {"config": config}
