"""Changes values of a model-config.yaml and nothing else: comments, order and spacing stay."""

import copy
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.errors import BenchError

CONFIG = "model-config.yaml"


def change(text: str, changes: Mapping[str, int | str]) -> str:
    """`changes` by key, `handler.key` for one of the section `handler:`; what is missing is added.

    A value that is the same already, written in another way, stays as it is written.
    """
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        text = _in_section(text, section, name, value) if section else _at_the_top(text, name, value)
    return text


def configured_copy(archive: Path, target: Path, changes: Mapping[str, int | str]) -> None:
    """The same archive with another configuration."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename == CONFIG:
                content = change(content.decode(), changes).encode()
            new.writestr(member, content)


def write(path: Path, changes: Mapping[str, int | str]) -> None:
    """Changes the file at once or not at all. Raises BenchError where the text cannot be changed safely."""
    before = path.read_text(encoding="utf-8")
    after = change(before, changes)
    if _read(after) != _expected(_read(before) or {}, changes):
        wanted = ", ".join(f"{key}: {value}" for key, value in changes.items())
        raise BenchError(f"{path} is written in a way that cannot be changed here; by hand: {wanted}")
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(after, encoding="utf-8")
    unfinished.replace(path)


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _expected(config: Any, changes: Mapping[str, int | str]) -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(config)
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        place = found.setdefault(section, {}) if section else found
        if isinstance(place, dict):
            place[name] = value
    return found


def _at_the_top(text: str, key: str, value: int | str) -> str:
    changed, found = _set(text, "", key, value)
    return changed if found else f"{key}: {value}\n{text}"


def _in_section(text: str, section: str, key: str, value: int | str) -> str:
    match = re.search(
        rf"^{re.escape(section)}:[^\n]*\n(?:(?:[ \t][^\n]*|#[^\n]*)?(?:\n|\Z))*", text, re.MULTILINE
    )
    if match is None:
        return f"{text.rstrip()}\n{section}:\n  {key}: {value}\n"
    block = match[0]
    changed, found = _set(block, r"[ \t]+", key, value)
    if not found:
        lines = block.splitlines(keepends=True)
        own = [at for at, line in enumerate(lines) if line[0] in " \t" and line.strip()]
        indent = re.match(r"[ \t]*", lines[own[-1]])[0] if own else "  "  # type: ignore[index]
        lines.insert(own[-1] + 1 if own else 1, f"{indent}{key}: {value}\n")
        changed = "".join(lines)
    return text[: match.start()] + changed + text[match.end() :]


def _set(text: str, indent: str, key: str, value: int | str) -> tuple[str, bool]:
    pattern = re.compile(rf"^({indent}{re.escape(key)}:[ \t]*)([^\s#]+)", re.MULTILINE)
    match = pattern.search(text)
    if match is None:
        return text, False
    if match[2].replace("_", "") == str(value):
        return text, True
    return f"{text[: match.start(2)]}{value}{text[match.end(2) :]}", True
