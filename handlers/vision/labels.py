"""A classifier's labels, and what makes scores of its outputs, from the model's folder."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from handlers.core.errors import ConfigurationError

PREPARED_LABELS = Path("prepared", "labels.json")
"""Where packing leaves the labels that config.json leaves to a library's own lists, inside the model's folder."""


def read_labels(folder: Path) -> tuple[list[str], str]:
    """The labels by their index, and the name of the function that makes scores of the network's outputs.

    Without transformers where that is possible: it takes a second to import, and timm two more. Raises
    ConfigurationError for labels that are none.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    prepared = folder / PREPARED_LABELS
    if own := own_labels(config):
        labels = own
    elif prepared.exists():
        labels = json.loads(prepared.read_text())
    else:
        from transformers import AutoConfig

        read = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        labels = [str(read.id2label[index]) for index in range(len(read.id2label))]
    several_may_be_right = config.get("problem_type") == "multi_label_classification" or len(labels) == 1
    return labels, "sigmoid" if several_may_be_right else "softmax"


def own_labels(config: dict[str, Any]) -> list[str]:
    """What config.json itself says, as transformers (`id2label`) or timm (`label_names`) writes it; else none.

    Raises ConfigurationError unless that is a text or a number for each index from 0 on.
    """
    for key in ("id2label", "label_names"):
        if names := config.get(key):
            return [_label(key, index, name) for index, name in enumerate(_in_order(key, names))]
    return []


def _in_order(key: str, names: Any) -> list[Any]:
    if isinstance(names, list) and key == "label_names":
        return names
    if not isinstance(names, dict) or not all(str(index).isdecimal() for index in names):
        raise ConfigurationError(f'config.json: {key!r} must map indices such as "0" to labels')
    by_index = {int(index): name for index, name in names.items()}
    missing = next((index for index in range(len(names)) if index not in by_index), None)
    if missing is not None:
        raise ConfigurationError(
            f"config.json: {key!r} has {len(names)} labels and none for index {missing}; name each output"
        )
    return [by_index[index] for index in range(len(names))]


def _label(key: str, index: int, name: Any) -> str:
    if isinstance(name, str | int | float) and str(name).strip():
        label = str(name)
        with suppress(UnicodeEncodeError):
            label.encode()
            return label
    raise ConfigurationError(f"config.json: {key!r} has {name!r} for index {index}; give that output a text")
