"""Small models and drawn images for tests of image classification engines."""

from pathlib import Path

import torch
from transformers import ResNetConfig, ResNetForImageClassification

from tests.conftest import ROOT
from training.images import draw_image

STARTER = ROOT / "models" / "resnet-50" / "starter"


def write_images(folder: Path, seed: int, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{index:04}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(draw_image(seed, index)[1])
    return paths


def write_small_resnet(folder: Path) -> Path:
    """Write a ResNet of two blocks with random weights, for images of 64 x 64."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_labels=7)
    network = ResNetForImageClassification(config).eval()
    with torch.no_grad():  # otherwise all logits are nearly the same
        network.classifier[1].weight.mul_(20)
    network.save_pretrained(folder)
    text = (STARTER / "preprocessor_config.json").read_text()
    (folder / "preprocessor_config.json").write_text(text.replace("224", "64"))
    return folder
