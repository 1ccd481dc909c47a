"""Parsing of class labels: text with one label per line, or JSON such as ImageNet's class index."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchserve_models.packing.errors import InvalidSource, explain_os_errors


def read_labels(path: Path) -> list[str]:
    """Return the labels in the order of their indices.

    JSON may be a list of labels, {"0": "tench"} or {"tench": 0}. A label in a list or an index-to-label mapping may
    be a list such as ["n01440764", "tench"], whose last element is used.

    Raises:
        InvalidSource: The file is not text or JSON with exactly one label for each index from 0.
    """
    with explain_os_errors(f"reading the labels {path}"):
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidSource(
            f"{path} is not UTF-8 text. Pass a file with one label per line, or JSON, to --labels."
        ) from error
    labels = _parse_json(path, text) if text.lstrip()[:1] in ("[", "{") else None
    if labels is None:
        # Not str.splitlines, because labels may contain the other line separators that it splits at.
        labels = text.rstrip().split("\n") if text.strip() else []
    labels = [label.strip() for label in labels]
    if not labels:
        raise InvalidSource(f"{path} has no labels. Add one label per line, or a JSON list.")
    if "" in labels:
        raise InvalidSource(
            f"{path} has no label for index {labels.index('')} (line {labels.index('') + 1})."
        )
    return labels


def _parse_json(path: Path, text: str) -> list[str] | None:
    """Return the labels of a JSON file, or None for a text file, which may start with a label such as [unk]."""
    try:
        content = json.loads(text)
    except ValueError as error:
        if path.suffix.lower() != ".json":
            return None
        raise InvalidSource(f"{path} is not valid JSON: {error}.") from error
    return (
        _parse_mapping(path, content)
        if isinstance(content, dict)
        else [_parse_label(path, label) for label in content]
    )


def _parse_mapping(path: Path, content: Mapping[str, Any]) -> list[str]:
    by_label = all(isinstance(value, int) for value in content.values())
    pairs = ((value, key) for key, value in content.items()) if by_label else content.items()
    try:
        by_index = {int(index): label for index, label in pairs}
    except ValueError as error:
        raise InvalidSource(f"{path} must map indices to labels or labels to indices: {error}.") from error
    missing = sorted(set(range(len(content))) - set(by_index))
    if missing:
        raise InvalidSource(
            f"{path} has {len(content)} entries, but no label for index {missing[0]}. Indices must be 0 to "
            f"{len(content) - 1}."
        )
    return [_parse_label(path, by_index[index]) for index in range(len(content))]


def _parse_label(path: Path, value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = value[-1]
    if not isinstance(value, str):
        raise InvalidSource(f"{path} contains the label {value!r}; labels must be strings.")
    return value
