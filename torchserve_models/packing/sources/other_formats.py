"""Explain why a folder or repository cannot be packed, and how to get a model from it that can."""

import re
from collections.abc import Collection

from torchserve_models.packing.errors import BadSource, NoSafetensors

ADAPTER = "adapter_config.json"
CHECKPOINTS = (".pth.tar", ".pth", ".pt", ".ckpt")
OF_CHECKPOINT = (
    "A checkpoint alone does not say how its network is built. For timm: `model = timm.create_model(NAME, "
    "checkpoint_path=FILE, num_classes=N)`, then `timm.models.save_for_hf(model, folder, safe_serialization=True)`, "
    "and pack that folder. For torchvision: --from torchvision:ARCHITECTURE --state-dict FILE --labels FILE."
)
"""What to do with a file of weights."""

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


def no_config(names: Collection[str], source: str) -> BadSource:
    """For `names` without config.json; those in subfolders have a slash."""
    checkpoints = sorted(name for name in names if name.endswith(CHECKPOINTS))
    if "model_index.json" in names:
        return BadSource(
            f"{source} is a pipeline of diffusers, which makes images; choose a model for image classification or "
            "for sequence-to-sequence text."
        )
    nested = sorted(name.rpartition("/")[0] for name in names if name.endswith(f"/{_CONFIG}"))
    if nested:
        return BadSource(
            f"{source} has no {_CONFIG}, and its subfolder {nested[0]} has one: pack that folder, with the "
            "tokenizer's or image processor's files beside it."
        )
    if checkpoints:
        return BadSource(f"{source} has {checkpoints[0]} and no {_CONFIG}. {OF_CHECKPOINT}")
    if found := _other_format(names):
        return BadSource(f"{source} has no {_CONFIG}, and {found}.")
    weights = sorted(name for name in names if name.endswith((".safetensors", ".bin")))
    if weights:
        return BadSource(
            f"{source} has {weights[0]} and no {_CONFIG}, which says how the network is built: pack all that {_SAVE} "
            "writes."
        )
    return BadSource(
        f"{source} has no {_CONFIG}: it is not a model in the hub's layout, as {_SAVE} or `timm.models.save_for_hf` "
        "writes it."
    )


def no_safetensors(
    names: Collection[str], source: str, expected: str, pickles: Collection[str]
) -> NoSafetensors:
    """For `names` without the weights `expected`; `pickles` are those that `--pickled` would read."""
    has_pickle = any(name in pickles for name in names)
    others = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    shards = [name for name in others if _SHARD.fullmatch(name)]
    if shards and not has_pickle:
        return NoSafetensors(
            f"{source} has {shards[0]} and no {expected}.index.json, which says what lies where: get that file as "
            "well."
        )
    if len(others) == 1 and not has_pickle:
        return NoSafetensors(
            f"{source} has {others[0]} and no {expected}; rename it if it is the whole model."
        )
    if not has_pickle and (found := _other_format(names)):
        return NoSafetensors(f"{source} has no {expected}, and {found}.")
    there = sorted(name for name in names if name.endswith((*CHECKPOINTS, ".bin", ".tar", ".pkl")))
    found = f" (there is {', '.join(there[:3])}, but only safetensors are opened)" if there else ""
    hint = ""
    if has_pickle:
        hint = (
            " Or add --pickled: torch then reads it without running code from it, and safetensors are packed."
        )
    return NoSafetensors(
        f"{source} has no {expected}{found}. Use a source that has one, or convert it with "
        f"`save_pretrained(folder)` of transformers on a machine where you trust it, and pack that folder.{hint}"
    )


def adapter(source: str, has_weights: bool) -> BadSource:
    """For what has adapter_config.json, without or beside the weights of a model."""
    if has_weights:
        return BadSource(
            f"{source} has a model and an adapter ({ADAPTER}), which would not be applied. Merge the adapter with "
            "PEFT, `model.merge_and_unload().save_pretrained(folder)`, and pack that folder; or take the adapter's "
            "files out if the model is wanted without it."
        )
    return BadSource(
        f"{source} is an adapter (LoRA, {ADAPTER}), not a model. Merge it into its base model with PEFT, "
        "`model.merge_and_unload().save_pretrained(folder)`, save its tokenizer or image processor beside it, and "
        "pack that folder."
    )


def _other_format(names: Collection[str]) -> str:
    """What is there instead, as a clause; empty for nothing known."""
    for suffix, name in _FORMATS:
        files = sorted(file for file in names if file.endswith(suffix))
        if files:
            return (
                f"{files[0]} is a model for another program ({name}), which is not read: pack the model that it was "
                f"made from, as {_SAVE} writes it with PyTorch"
            )
    return ""
