"""A classifier's labels, and what makes scores of its outputs, from the model's folder."""

import json
from pathlib import Path
from typing import Any

PREPARED_LABELS = Path("prepared", "labels.json")
"""Where packing leaves the labels that config.json leaves to a library's own lists, inside the model's folder."""


def read_labels(folder: Path) -> tuple[list[str], str]:
    """The labels by their index, and the name of the function that makes scores of the network's outputs.

    Without transformers where that is possible: it takes a second to import, and timm two more.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    prepared = folder / PREPARED_LABELS
    if own := own_labels(config):
        labels = own
    elif prepared.exists():
        labels = json.loads(prepared.read_text())
    else:
        from transformers import AutoConfig

        read = AutoConfig.from_pretrained(folder, local_files_only=True)
        labels = [str(read.id2label[index]) for index in range(len(read.id2label))]
    several_may_be_right = config.get("problem_type") == "multi_label_classification" or len(labels) == 1
    return labels, "sigmoid" if several_may_be_right else "softmax"


def own_labels(config: dict[str, Any]) -> list[str]:
    """What config.json itself says, as transformers (`id2label`) or timm (`label_names`) writes it; else none."""
    names = config.get("id2label") or config.get("label_names") or ()
    if isinstance(names, dict):
        by_index = {int(index): str(name) for index, name in names.items()}
        return [by_index[index] for index in range(len(by_index))]
    return [str(name) for name in names]
