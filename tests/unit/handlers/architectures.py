"""Writers of model folders in the Hugging Face Hub's layout: real classifier architectures with random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SegformerConfig,
    SegformerForImageClassification,
    SwinConfig,
    SwinForImageClassification,
)

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# The preprocessor_config.json of these repositories, older keys and all.
RESNET_PROCESSOR = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": IMAGENET_MEAN,
    "image_std": IMAGENET_STD,
    "resample": 3,
    "size": 224,
}
MIT_PROCESSOR = {
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "SegformerFeatureExtractor",
    "image_mean": IMAGENET_MEAN,
    "image_std": IMAGENET_STD,
    "reduce_labels": False,
    "resample": 2,
    "size": 512,
}
MOBILENET_PROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "MobileNetV2ImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 256},
}
SWIN_PROCESSOR = {
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ViTFeatureExtractor",
    "image_mean": IMAGENET_MEAN,
    "image_std": IMAGENET_STD,
    "resample": 3,
    "size": 224,
}
TINYVIT_CONFIG = {
    "architecture": "tiny_vit_5m_224",
    "num_classes": 21841,
    "num_features": 320,
    "global_pool": "avg",
    "pretrained_cfg": {
        "tag": "dist_in22k",
        "custom_load": False,
        "input_size": [3, 224, 224],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "num_classes": 21841,
        "pool_size": [7, 7],
        "first_conv": "patch_embed.conv1.conv",
        "classifier": "head.fc",
        "license": "apache-2.0",
    },
}
"""The configuration of timm/tiny_vit_5m_224.dist_in22k."""


def resnet_50(folder: Path) -> None:
    _write(folder, ResNetForImageClassification, ResNetConfig(id2label=_named(1000)), RESNET_PROCESSOR)


def resnet_152(folder: Path) -> None:
    config = ResNetConfig(depths=[3, 8, 36, 3], id2label=_named(1000))
    _write(folder, ResNetForImageClassification, config, RESNET_PROCESSOR)


def mit_b0(folder: Path, depth: int = 2, size: int = 512) -> None:
    """Write MiT-B0, or one with fewer blocks in each of its four stages and for smaller images."""
    config = SegformerConfig(
        depths=[depth] * 4, hidden_dropout_prob=0.0, classifier_dropout_prob=0.1, id2label=_named(1000)
    )
    _write(folder, SegformerForImageClassification, config, MIT_PROCESSOR | {"size": size})


def mobilenet_v2(folder: Path) -> None:
    config = MobileNetV2Config(id2label=_named(1001))
    _write(folder, MobileNetV2ForImageClassification, config, MOBILENET_PROCESSOR)


def swin(folder: Path) -> None:
    """Write a Swin with three layers in two of its four stages, because converting all takes long."""
    config = SwinConfig(depths=[1, 2], num_heads=[3, 6], id2label=_named(1000))
    _write(folder, SwinForImageClassification, config, SWIN_PROCESSOR)


def tinyvit(folder: Path) -> None:
    write_timm(folder, TINYVIT_CONFIG)


def write_timm(folder: Path, config: dict[str, Any]) -> None:
    """Write only config.json and the weights, with timm's names."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model(config["architecture"], pretrained=False, num_classes=config["num_classes"])
    _vary(network)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), folder / "model.safetensors")


WRITERS: dict[str, Callable[[Path], None]] = {
    "resnet-50": resnet_50,
    "resnet-152": resnet_152,
    "mit-b0": mit_b0,
    "mobilenet-v2": mobilenet_v2,
    "tinyvit": tinyvit,
    "swin": swin,
}


def _named(count: int) -> dict[int, str]:
    return {index: f"label {index}" for index in range(count)}


def _write(folder: Path, architecture: Any, config: Any, processor: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = architecture(config)
    _vary(network)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


@torch.no_grad()
def _vary(network: torch.nn.Module) -> None:
    """Change initial weights, with which all images get the same label, so that images get different labels."""
    *_, last = (module for module in network.modules() if isinstance(module, torch.nn.Linear))
    torch.nn.init.normal_(last.weight)
    answer = network.eval()(torch.randn(1, 3, 224, 224))
    logits = answer if isinstance(answer, torch.Tensor) else answer.logits
    last.weight.mul_(3 / logits.std())
