"""Checks of a model's weights at packing, so that no worker fails at them: keys, shapes, types and values."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from handlers.core.errors import ConfigurationError
from handlers.core.faults import line
from handlers.engines.loading import unfilled

_SAVE_AGAIN = "save the model again with save_pretrained(), and pack the config.json and weights of one save"
_FLOATS = ("F64", "F32", "F16", "BF16")
_NUMBER = re.compile(r"\d+")


def fit(folder: Path, auto_class: Any) -> Any:
    """The network that `config.json` describes, filled with zeros in the shapes of the weights that lie in `folder`.

    It takes no memory: each tensor is one zero, expanded. The library renames and ties weights as it does in a
    worker. Raises ConfigurationError naming what does not fit.
    """
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    check_not_quantized(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        network, report = auto_class._model_mapping[type(config)].from_pretrained(
            None,
            config=config,
            state_dict={name: torch.zeros(()).expand(shape) for name, _, shape in headers(folder)},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise ConfigurationError(
            f"config.json describes no network that can be built: {line(error)}"
        ) from error
    kind = type(network).__name__
    if mismatched := sorted(report["mismatched_keys"], key=str):
        raise ConfigurationError(
            f"the weights do not fit config.json: {_mismatch(mismatched[0])} ({len(mismatched)} such weights); "
            f"{_SAVE_AGAIN}"
        )
    if missing := unfilled(network, report):
        raise ConfigurationError(
            f"the weights lack {len(missing)} of those that {kind} needs, such as {missing[0]!r}; {_SAVE_AGAIN}"
        )
    patterns = {_NUMBER.sub("*", name) for name in network.state_dict()}
    extra = [name for name in sorted(report["unexpected_keys"]) if _NUMBER.sub("*", name) in patterns]
    if extra:
        raise ConfigurationError(
            f"the weights have {len(extra)} more than config.json describes, such as {extra[0]!r}: its layers are "
            f"fewer; {_SAVE_AGAIN}"
        )
    return network


def check_values(folder: Path, network: torch.nn.Module) -> None:
    """Check that every weight in `folder` is of a kind that a worker can load, and a number.

    `network` says which are parameters, and which of them are floating. Raises ConfigurationError.
    """
    own = network.state_dict()
    buffers = {name for name, _ in network.named_buffers()}
    for file in weight_files(folder):
        try:
            with safe_open(file, "pt") as content:
                for name in content.keys():  # noqa: SIM118  # it is no mapping
                    kind = content.get_slice(name).get_dtype()
                    if kind in _FLOATS:
                        _check_finite(file, name, content.get_tensor(name), name in buffers)
                    elif kind.startswith(("F", "C")) or (name in own and own[name].is_floating_point()):
                        raise ConfigurationError(
                            f"{file.name}: {name!r} is of type {kind}, which is not served; save the model in "
                            "float32, float16 or bfloat16"
                        )
        except SafetensorError as error:
            raise ConfigurationError(f"{file.name} cannot be read: {error}; get the file again") from error


def check_not_quantized(folder: Path) -> None:
    """Raises ConfigurationError for weights in a format that needs another library."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        raise ConfigurationError(
            f"config.json: 'quantization_config' ({method}) is not served; pack the model that was not quantized, "
            "and set 'handler.precision'"
        )


def headers(folder: Path) -> Iterator[tuple[str, str, list[int]]]:
    """Name, type and shape of each tensor. Raises ConfigurationError for a file that is none."""
    for file in weight_files(folder):
        try:
            with safe_open(file, "pt") as content:
                for name in content.keys():  # noqa: SIM118  # it is no mapping
                    tensor = content.get_slice(name)
                    yield name, tensor.get_dtype(), tensor.get_shape()
        except SafetensorError as error:
            raise ConfigurationError(f"{file.name} cannot be read: {error}; get the file again") from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that transformers would read: those of the index, else the one file."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if single.exists() or not index.exists():
        return [single]
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return [folder / name for name in sorted(set(shards.values()))]


def _check_finite(file: Path, name: str, tensor: torch.Tensor, is_buffer: bool) -> None:
    """Buffers may hold infinity, as masks do."""
    if tensor.numel() == 0:
        return
    bounds = [float(bound) for bound in tensor.aminmax()]
    if any(map(math.isnan, bounds)) or (any(map(math.isinf, bounds)) and not is_buffer):
        raise ConfigurationError(
            f"{file.name}: {name!r} holds values that are not numbers (NaN or infinity); get or train the weights "
            "again"
        )


def _mismatch(entry: Any) -> str:
    if isinstance(entry, tuple) and len(entry) == 3:
        name, found, expected = entry
        return f"{name!r} has the shape {list(found)} instead of {list(expected)}"
    return f"{entry!r} has another shape"
