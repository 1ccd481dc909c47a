"""Checks of the names, shapes, types and values of weights before workers load them."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from handlers.core.errors import ConfigurationError
from handlers.core.exception_handling import summarize_exception
from handlers.engines.loading import find_missing_weights

_SAVE_AGAIN = "save the model again with save_pretrained(), and pack the config.json and weights of one save"
_FLOATS = ("F64", "F32", "F16", "BF16")
_NUMBER = re.compile(r"\d+")


def build_zero_network(folder: Path, auto_class: Any) -> Any:
    """Build the network in `config.json` from zeros with the names and shapes of the folder's weights.

    The network takes little memory, because each tensor is an expanded scalar. Weights are renamed and tied as in a
    worker.

    Args:
        folder: Hugging Face model folder.
        auto_class: One of transformers' AutoModel classes.

    Raises:
        ConfigurationError: The weights do not match config.json. The message names one of them.
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
            f"cannot build the network in config.json: {summarize_exception(error)}"
        ) from error
    kind = type(network).__name__
    if mismatched := sorted(report["mismatched_keys"], key=str):
        raise ConfigurationError(
            f"the weights do not match config.json: {_mismatch(mismatched[0])} ({len(mismatched)} mismatches); "
            f"{_SAVE_AGAIN}"
        )
    if missing := find_missing_weights(network, report):
        raise ConfigurationError(
            f"weights of {kind} are missing ({len(missing)} in total), such as {missing[0]!r}; {_SAVE_AGAIN}"
        )
    patterns = {_NUMBER.sub("*", name) for name in network.state_dict()}
    extra = [name for name in sorted(report["unexpected_keys"]) if _NUMBER.sub("*", name) in patterns]
    if extra:
        raise ConfigurationError(
            f"config.json has fewer layers than the weights, which contain {len(extra)} unexpected tensors such as "
            f"{extra[0]!r}; {_SAVE_AGAIN}"
        )
    return network


def check_values(folder: Path, network: torch.nn.Module) -> None:
    """Check that every weight in `folder` has a type that a worker can load, and finite values.

    Args:
        folder: Hugging Face model folder.
        network: The network, which decides on the buffers and floating-point types.

    Raises:
        ConfigurationError: A weight has another type or a value that is not finite, or a file cannot be read.
    """
    state_dict = network.state_dict()
    buffers = {name for name, _ in network.named_buffers()}
    for file in weight_files(folder):
        try:
            with safe_open(file, "pt") as content:
                for name in content.keys():  # noqa: SIM118  # it is not a mapping
                    kind = content.get_slice(name).get_dtype()
                    if kind in _FLOATS:
                        _check_finite(file, name, content.get_tensor(name), name in buffers)
                    elif kind.startswith(("F", "C")) or (
                        name in state_dict and state_dict[name].is_floating_point()
                    ):
                        raise ConfigurationError(
                            f"{file.name}: {name!r} has the type {kind}, which is not supported; save the model in "
                            "float32, float16 or bfloat16"
                        )
        except SafetensorError as error:
            raise ConfigurationError(
                f"{file.name} cannot be read: {error}; download the file again"
            ) from error


def check_not_quantized(folder: Path) -> None:
    """Raise ConfigurationError for quantized weights, which require another library."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        raise ConfigurationError(
            f"config.json: 'quantization_config' ({method}) is not supported; pack the original model, "
            "and set 'handler.precision'"
        )


def headers(folder: Path) -> Iterator[tuple[str, str, list[int]]]:
    """Yield the name, type and shape of each tensor. Raises ConfigurationError for an unreadable file."""
    for file in weight_files(folder):
        try:
            with safe_open(file, "pt") as content:
                for name in content.keys():  # noqa: SIM118  # it is not a mapping
                    tensor = content.get_slice(name)
                    yield name, tensor.get_dtype(), tensor.get_shape()
        except SafetensorError as error:
            raise ConfigurationError(
                f"{file.name} cannot be read: {error}; download the file again"
            ) from error


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that transformers reads: the shards in the index, or the single file."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if single.exists() or not index.exists():
        return [single]
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return [folder / name for name in sorted(set(shards.values()))]


def _check_finite(file: Path, name: str, tensor: torch.Tensor, is_buffer: bool) -> None:
    """Raise ConfigurationError for NaN, and for infinity outside buffers, which may be masks."""
    if tensor.numel() == 0:
        return
    bounds = [float(bound) for bound in tensor.aminmax()]
    if any(map(math.isnan, bounds)) or (any(map(math.isinf, bounds)) and not is_buffer):
        raise ConfigurationError(
            f"{file.name}: {name!r} contains NaN or infinity; download or train the weights again"
        )


def _mismatch(entry: Any) -> str:
    if isinstance(entry, tuple) and len(entry) == 3:
        name, actual, expected = entry
        return f"{name!r} has the shape {list(actual)} instead of {list(expected)}"
    return f"{entry!r} has another shape"
