"""Edits of model-config.yaml that keep comments, order and spacing."""

import copy
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from torchserve_models.files import write_atomic
from torchserve_models.tuning.errors import TuningError

CONFIG_NAME = "model-config.yaml"

Changes = Mapping[str, int | str]
"""New values by key; `handler.KEY` is a key of the section `handler:`."""


def edit_config(text: str, changes: Changes) -> str:
    """Return the text of a configuration with changed values; missing keys are added.

    An unchanged value keeps its notation (`50_000_000`).
    """
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        text = _set_in_section(text, section, name, value) if section else _set_top_level(text, name, value)
    return text


def copy_archive_with_config(archive: Path, target: Path, changes: Changes) -> None:
    """Copy a model archive and change values in its configuration."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename == CONFIG_NAME:
                content = edit_config(content.decode(), changes).encode()
            new.writestr(member, content)


def write_config(path: Path, changes: Changes) -> bool:
    """Change values of a configuration file atomically.

    Returns:
        True if the file was changed.

    Raises:
        TuningError: The file has a YAML style that cannot be edited, or cannot be written. The file is unchanged.
    """
    text = path.read_text(encoding="utf-8")
    edited = edit_config(text, changes)
    if _parse(edited) != _apply_changes(_parse(text) or {}, changes):
        raise TuningError(
            f"{path} uses a YAML style that cannot be edited automatically; {_describe_manual_edit(changes)}"
        )
    if edited == text:
        return False
    try:
        write_atomic(path, edited)
    except OSError as error:
        raise TuningError(
            f"cannot write {path}: {error.strerror}; {_describe_manual_edit(changes)}"
        ) from error
    return True


def _describe_manual_edit(changes: Changes) -> str:
    return "set these values in an editor: " + ", ".join(f"{key}: {value}" for key, value in changes.items())


def _parse(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _apply_changes(config: Any, changes: Changes) -> dict[str, Any]:
    expected: dict[str, Any] = copy.deepcopy(config)
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        mapping = expected.setdefault(section, {}) if section else expected
        if isinstance(mapping, dict):
            mapping[name] = value
    return expected


def _set_top_level(text: str, key: str, value: int | str) -> str:
    edited, exists = _replace_value(text, "", key, value)
    return edited if exists else f"{key}: {value}\n{text}"


def _set_in_section(text: str, section: str, key: str, value: int | str) -> str:
    match = re.search(
        rf"^{re.escape(section)}:[^\n]*\n(?:(?:[ \t][^\n]*|#[^\n]*)?(?:\n|\Z))*", text, re.MULTILINE
    )
    if match is None:
        return f"{text.rstrip()}\n{section}:\n  {key}: {value}\n"
    edited, exists = _replace_value(match[0], r"[ \t]+", key, value)
    if not exists:
        lines = match[0].splitlines(keepends=True)
        entries = [index for index, line in enumerate(lines) if line[0] in " \t" and line.strip()]
        last = entries[-1] if entries else 0
        indent = lines[last][: -len(lines[last].lstrip(" \t"))] if entries else "  "
        lines.insert(last + 1, f"{indent}{key}: {value}\n")
        edited = "".join(lines)
    return text[: match.start()] + edited + text[match.end() :]


def _replace_value(text: str, indent: str, key: str, value: int | str) -> tuple[str, bool]:
    """Replace the value of a key; return the text and whether it contains the key."""
    match = re.search(rf"^({indent}{re.escape(key)}:[ \t]*)([^\s#]+)", text, re.MULTILINE)
    if match is None:
        return text, False
    if match[2].replace("_", "") == str(value):
        return text, True
    return f"{text[: match.start(2)]}{value}{text[match.end(2) :]}", True
