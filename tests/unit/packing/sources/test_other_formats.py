"""Rejection of folders in other formats, with the steps to convert them."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from torchserve_models.packing import errors
from torchserve_models.packing.sources.folder import collect, inspect
from torchserve_models.packing.sources.model_files import ModelFile, weight_files

EMPTY = struct.pack("<Q", 2) + b"{}"
RESNET = {"model_type": "resnet", "architectures": ["ResNetForImageClassification"]}
T5 = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}
CLASSIFIER = {"config.json": RESNET, "preprocessor_config.json": {}}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "GGUF": ({"model-q4.gguf": b"GGUF"}, r"model-q4\.gguf has another format \(GGUF"),
    "GGUF with a configuration": (
        {"model.gguf": b"", "config.json": T5},
        "another format .GGUF.*Pack the PyTorch model that",
    ),
    "ONNX": ({**CLASSIFIER, "model.onnx": b""}, "another format .ONNX"),
    "TensorFlow": ({**CLASSIFIER, "tf_model.h5": b""}, "another format .TensorFlow"),
    "Flax": ({**CLASSIFIER, "flax_model.msgpack": b""}, "another format .Flax"),
    "Keras": ({"model.keras": b""}, "another format .Keras"),
    "OpenVINO": (
        {**CLASSIFIER, "openvino_model.xml": b"", "openvino_model.bin": b""},
        "another format .OpenVINO",
    ),
    "diffusers": (
        {"model_index.json": {}, "unet/config.json": {}},
        "diffusers pipeline, which generates images",
    ),
    "a part of diffusers": (
        {"config.json": {"_class_name": "UNet2DConditionModel"}},
        "part of a diffusers pipeline",
    ),
    "a folder of checkpoints": (
        {"checkpoint-500/config.json": RESNET},
        "its subfolder checkpoint-500 does. Pack that folder",
    ),
    "weights alone": (
        {"model.safetensors": EMPTY},
        r"has model\.safetensors but no config\.json, which describes",
    ),
    "a checkpoint": ({"best.pt": b""}, "best.pt but no config.json. A checkpoint does not describe"),
    "nothing": ({}, "not a Hugging Face model folder. Create one with .save_pretrained"),
    "an adapter": (
        {"adapter_config.json": {}, "config.json": T5},
        "is an adapter .*Merge it into its base model",
    ),
    "a model and an adapter": (
        {"adapter_config.json": {}, "config.json": T5, "model.safetensors": EMPTY, "tokenizer.json": {}},
        "has both a model and an adapter .*Merge the adapter",
    ),
    "shards without an index": (
        {**CLASSIFIER, "model-00001-of-00002.safetensors": EMPTY, "model-00002-of-00002.safetensors": EMPTY},
        "no model.safetensors.index.json, which lists the tensors of each shard. Add that",
    ),
    "weights of another name": (
        {**CLASSIFIER, "model.fp16.safetensors": EMPTY},
        "Rename model.fp16.safetensors if it contains the complete model",
    ),
    "no weights": (CLASSIFIER, "has no model.safetensors. Use a source with this file"),
    "a missing shard": (
        {
            **CLASSIFIER,
            "model.safetensors.index.json": {"weight_map": {"a": "model-00001-of-00001.safetensors"}},
        },
        "names model-00001-of-00001.safetensors, which is missing. Add that file",
    ),
    "weights that are a pointer": ({**CLASSIFIER, "model.safetensors": POINTER}, "run `git lfs pull`"),
    "a configuration that is a pointer": (
        {"config.json": POINTER},
        "is a Git LFS pointer, not the file: run",
    ),
    "no image processor": (
        {"config.json": RESNET, "model.safetensors": EMPTY},
        r"preprocessor_config.json, or .*`AutoImageProcessor.from_pretrained\(ORIGINAL\).save_pretrained\(folder\)`",
    ),
    "no tokenizer": ({"config.json": T5, "model.safetensors": EMPTY}, "`AutoTokenizer.from_pretrained"),
    "no class": (
        {"config.json": {"model_type": "resnet"}},
        "has no class name in `architectures`. Add the class",
    ),
    "timm's older format": (
        {"config.json": {"architecture": "resnet18", "num_classes": 10}},
        "older timm format. Save the model again",
    ),
    "no model type": ({"config.json": {"architectures": ["ResNetModel"]}}, "has no `model_type`, which"),
    "no head": (
        {"config.json": RESNET | {"architectures": ["ResNetModel"]}},
        "For this model type it loads ResNetForImageClassification: choose",
    ),
    "custom code": (
        {"config.json": {"model_type": "my", "architectures": ["My"], "auto_map": {}}},
        "requires custom code .`auto_map`., which is never run",
    ),
    "a language model": (
        {"config.json": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}},
        "Choose a model made for image classification or for sequence-to-sequence text",
    ),
    "an object detector": (
        {"config.json": {"model_type": "detr", "architectures": ["DetrForObjectDetection"]}},
        "is a 'DetrForObjectDetection'.*Choose a model made for image classification",
    ),
}


def test_error_suggests_pickled_option_if_only_other_safetensors_exist() -> None:
    for other in ("model.fp16.safetensors", "onnx/decoder.safetensors", "model-00001-of-00002.safetensors"):
        with pytest.raises(errors.NoSafetensors, match="add --pickled"):
            weight_files(["config.json", "pytorch_model.bin", other], "the folder F")


def files_of(folder: Path) -> list[ModelFile]:
    task, _ = inspect(folder, "the folder F")
    return collect(folder, task, "the folder F")


@pytest.mark.parametrize("name", CASES)
def test_unsupported_folder_is_rejected_with_the_reason(name: str, tmp_path: Path) -> None:
    files, reason = CASES[name]
    for file, content in files.items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(errors.InvalidSource, match=f"^(config.json of )?(.* of )?the folder .*{reason}"):
        files_of(tmp_path)
