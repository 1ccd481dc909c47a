"""Read a classifier's labels and score function from the model's folder."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from handlers.core.errors import ConfigurationError

PREPARED_LABELS = Path("prepared", "labels.json")
"""File in the model's folder to which packing writes labels that config.json does not contain."""


def read_labels(folder: Path) -> tuple[list[str], str]:
    """Return the labels by index, and the name of the function that converts the network's outputs to scores.

    Imports transformers only if necessary: it takes a second, and timm two more.

    Raises:
        ConfigurationError: The labels are invalid.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    prepared = folder / PREPARED_LABELS
    if labels_in_config := config_labels(config):
        labels = labels_in_config
    elif prepared.exists():
        labels = json.loads(prepared.read_text())
    else:
        from transformers import AutoConfig

        model_config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        labels = [str(model_config.id2label[index]) for index in range(len(model_config.id2label))]
    is_multi_label = config.get("problem_type") == "multi_label_classification" or len(labels) == 1
    return labels, "sigmoid" if is_multi_label else "softmax"


def config_labels(config: dict[str, Any]) -> list[str]:
    """Return the labels in config.json: `id2label` of transformers or `label_names` of timm; [] if neither is set.

    Raises:
        ConfigurationError: An index has no label, or a label is not a text or number.
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
            f"config.json: {key!r} has {len(names)} labels, but no label for index {missing}; add a label for each "
            "index"
        )
    return [by_index[index] for index in range(len(names))]


def _label(key: str, index: int, name: Any) -> str:
    if isinstance(name, str | int | float) and str(name).strip():
        label = str(name)
        with suppress(UnicodeEncodeError):
            label.encode()
            return label
    raise ConfigurationError(
        f"config.json: {key!r} has {name!r} for index {index}; each label must be a text that is not empty, or a "
        "number"
    )
