"""The labels that --labels names: text with one a line, or a JSON list or mapping, such as ImageNet's class index."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchserve_models.packing.errors import BadSource, explained


def read_labels(path: Path) -> list[str]:
    """The labels by their index. Raises BadSource for a file that does not give one for each index from 0 on.

    JSON may be a list, {"0": "tench"}, {"tench": 0}, or either with ["n01440764", "tench"] in the label's place, of
    which the last is taken.
    """
    with explained(f"reading the labels {path}"):
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSource(f"{path} is not text in UTF-8; --labels takes one label a line, or JSON.") from error
    labels = _of_json(path, text) if text.lstrip()[:1] in ("[", "{") else None
    if labels is None:
        # Of all that str.splitlines splits at, this alone ends a line: labels may hold the others.
        labels = text.rstrip().split("\n") if text.strip() else []
    labels = [label.strip() for label in labels]
    if not labels:
        raise BadSource(f"{path} has no labels.")
    if "" in labels:
        raise BadSource(f"{path} has no label for index {labels.index('')} (line {labels.index('') + 1}).")
    return labels


def _of_json(path: Path, text: str) -> list[str] | None:
    """None for what is no JSON and does not claim to be: a text may begin with a label such as [unk]."""
    try:
        content = json.loads(text)
    except ValueError as error:
        if path.suffix.lower() != ".json":
            return None
        raise BadSource(f"{path} is not valid JSON: {error}.") from error
    return _of_mapping(path, content) if isinstance(content, dict) else [_one(path, each) for each in content]


def _of_mapping(path: Path, content: Mapping[str, Any]) -> list[str]:
    by_label = all(isinstance(value, int) for value in content.values())
    pairs = ((value, key) for key, value in content.items()) if by_label else content.items()
    try:
        by_index = {int(index): label for index, label in pairs}
    except ValueError as error:
        raise BadSource(f"{path} maps neither indices to labels nor labels to indices: {error}.") from error
    missing = sorted(set(range(len(content))) - set(by_index))
    if missing:
        raise BadSource(f"{path} has {len(content)} entries and none for index {missing[0]}.")
    return [_one(path, by_index[index]) for index in range(len(content))]


def _one(path: Path, value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = value[-1]
    if not isinstance(value, str):
        raise BadSource(f"{path} has {value!r} where a label should be.")
    return value
