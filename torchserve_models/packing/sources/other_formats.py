"""Errors for folders and repositories in other formats, with the steps to convert them."""

import re
from collections.abc import Collection

from torchserve_models.packing.errors import InvalidSource, NoSafetensors

ADAPTER = "adapter_config.json"
CHECKPOINTS = (".pth.tar", ".pth", ".pt", ".ckpt")
CHECKPOINT_HINT = (
    "A checkpoint does not describe the architecture of its network. For timm: `model = timm.create_model(NAME, "
    "checkpoint_path=FILE, num_classes=N)`, then `timm.models.save_for_hf(model, folder, safe_serialization=True)`, "
    "and pack that folder. For torchvision: --from torchvision:ARCHITECTURE --state-dict FILE --labels FILE."
)
"""Instructions for a checkpoint without config.json."""

_CONFIG = "config.json"
_SAVE = "`save_pretrained(folder)` of transformers"
_FORMATS = (
    (".gguf", "GGUF, for llama.cpp"),
    (".onnx", "ONNX"),
    (".h5", "TensorFlow"),
    (".keras", "Keras"),
    (".pb", "TensorFlow"),
    (".tflite", "TensorFlow Lite"),
    (".msgpack", "Flax"),
    (".mlmodel", "Core ML"),
    (".engine", "TensorRT"),
    ("openvino_model.xml", "OpenVINO"),
)
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.safetensors")


def missing_config_error(names: Collection[str], source: str) -> InvalidSource:
    """Return the error for files without config.json; names of files in subfolders contain a slash."""
    checkpoints = sorted(name for name in names if name.endswith(CHECKPOINTS))
    if "model_index.json" in names:
        return InvalidSource(
            f"{source} is a diffusers pipeline, which generates images. Choose a model for image classification or "
            "for sequence-to-sequence text."
        )
    nested = sorted(name.rpartition("/")[0] for name in names if name.endswith(f"/{_CONFIG}"))
    if nested:
        return InvalidSource(
            f"{source} has no {_CONFIG}, but its subfolder {nested[0]} does. Pack that folder, and copy the "
            f"tokenizer "
            "or image processor files into it."
        )
    if checkpoints:
        return InvalidSource(f"{source} has {checkpoints[0]} but no {_CONFIG}. {CHECKPOINT_HINT}")
    if format_description := _describe_other_format(names):
        return InvalidSource(f"{source} has no {_CONFIG}, and {format_description}.")
    weights = sorted(name for name in names if name.endswith((".safetensors", ".bin")))
    if weights:
        return InvalidSource(
            f"{source} has {weights[0]} but no {_CONFIG}, which describes the network. Pack all files that {_SAVE} "
            "writes."
        )
    return InvalidSource(
        f"{source} has no {_CONFIG}, so it is not a Hugging Face model folder. Create one with {_SAVE} or "
        "`timm.models.save_for_hf`."
    )


def missing_safetensors_error(
    names: Collection[str], source: str, expected: str, pickles: Collection[str]
) -> NoSafetensors:
    """Return the error for files without the `expected` weights; `pickles` are the names that --pickled allows."""
    has_pickle = any(name in pickles for name in names)
    others = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    shards = [name for name in others if _SHARD.fullmatch(name)]
    if shards and not has_pickle:
        return NoSafetensors(
            f"{source} has {shards[0]} but no {expected}.index.json, which lists the tensors of each shard. Add that "
            "file."
        )
    if len(others) == 1 and not has_pickle:
        return NoSafetensors(
            f"{source} has {others[0]} but no {expected}. Rename {others[0]} if it contains the complete model."
        )
    if not has_pickle and (format_description := _describe_other_format(names)):
        return NoSafetensors(f"{source} has no {expected}, and {format_description}.")
    unsupported = sorted(name for name in names if name.endswith((*CHECKPOINTS, ".bin", ".tar", ".pkl")))
    other_weights = (
        f" (found {', '.join(unsupported[:3])}, but only safetensors are supported)" if unsupported else ""
    )
    hint = ""
    if has_pickle:
        hint = " Or add --pickled: torch then reads the pickle without running code from it, and packing converts it."
    return NoSafetensors(
        f"{source} has no {expected}{other_weights}. Use a source with this file, or convert the weights with "
        f"`save_pretrained(folder)` of transformers on an isolated machine, and pack that folder.{hint}"
    )


def adapter_error(source: str, has_weights: bool) -> InvalidSource:
    """Return the error for files with adapter_config.json, with or without the weights of a model."""
    if has_weights:
        return InvalidSource(
            f"{source} has both a model and an adapter ({ADAPTER}), which would not be applied. Merge the adapter "
            f"with "
            "PEFT, `model.merge_and_unload().save_pretrained(folder)`, and pack that folder; or remove the adapter "
            "files to pack the model without the adapter."
        )
    return InvalidSource(
        f"{source} is an adapter (LoRA, {ADAPTER}), not a model. Merge it into its base model with PEFT, "
        "`model.merge_and_unload().save_pretrained(folder)`, save its tokenizer or image processor in the same "
        "folder, "
        "and pack that folder."
    )


def _describe_other_format(names: Collection[str]) -> str:
    """Return a clause that describes the format of the files, or an empty string for an unknown format."""
    for suffix, name in _FORMATS:
        files = sorted(file for file in names if file.endswith(suffix))
        if files:
            return (
                f"{files[0]} has another format ({name}), which is not supported. Pack the PyTorch model that it was "
                f"converted from, saved with {_SAVE}"
            )
    return ""
