"""Real ImageNet weights in the hub's layout, converted from the shared test data."""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def mobilenet_folder(shared_data: Path, folder: Path) -> Path:
    """Convert torchvision's MobileNetV2 weights to transformers' model, and save it to `folder`.

    Both define the layers in the same order, so that their state dicts match position by position.
    """
    # Imported here, as each process of the server tests imports this module, and torch takes seconds.
    from safetensors.torch import load_file
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, MobileNetV2ImageProcessor

    names = json.loads((shared_data / "imagenet_index_to_name.json").read_text())
    labels = {int(index): name for index, (_, name) in names.items()}
    config = MobileNetV2Config(
        tf_padding=False,
        layer_norm_eps=1e-5,
        classifier_dropout_prob=0.2,
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
    )
    model = MobileNetV2ForImageClassification(config)
    weights = load_file(shared_data / "weights" / "mobilenet_v2_imagenet.safetensors")
    ordered = _in_order(weights)
    state_dict = model.state_dict()
    assert len(ordered) == len(state_dict)
    renamed = dict(zip(state_dict, ordered, strict=True))
    assert all(renamed[key].shape == state_dict[key].shape for key in state_dict)
    model.load_state_dict(renamed)
    model.save_pretrained(folder)
    MobileNetV2ImageProcessor(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        resample=2,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
    return folder


def _in_order(weights: "dict[str, torch.Tensor]") -> "list[torch.Tensor]":
    """Return the weights in torchvision's order of definition. The file is sorted by name."""
    from torchvision.models import mobilenet_v2

    return [weights[key] for key in mobilenet_v2(weights=None).state_dict()]


def labeled_photos(shared_data: Path) -> list[tuple[Path, int]]:
    """Return the photos whose ImageNet index is known, with the index."""
    with open(shared_data / "photos" / "labels.tsv", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    return [(shared_data / "photos" / row[0], int(row[1])) for row in rows if row[1].isdigit()]
