"""Comparison of the messages in docs/troubleshooting.md with the code of this repository and of TorchServe."""

import ast
import importlib.util
import re
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = ("handlers", "torchserve_models")
OTHER_PROGRAMS, TORCHSERVE_SECTION = "Other programs", "TorchServe messages"
HOLE = "\0"
"""A placeholder for the values in an f-string."""


def entries() -> Iterator[tuple[str, str]]:
    """Yield the section and text of each quoted message. List items begin with one or more messages."""
    section, item = "", ""
    for line in [*(ROOT / "docs" / "troubleshooting.md").read_text().splitlines(), ""]:
        if line.startswith("## "):
            section = line.removeprefix("## ")
        item = line.strip() if line.lstrip().startswith("- `") else f"{item} {line.strip()}".strip()
        if quoted := re.fullmatch(r"- (``?)(.+?)\1:", item):
            yield from ((section, message) for message in quoted[2].split("`, `"))


PYTHON_MESSAGES = {"ModuleNotFoundError", "Can't instantiate abstract class ..."}
PROJECT_MESSAGES = [
    message
    for section, message in entries()
    if section not in (OTHER_PROGRAMS, TORCHSERVE_SECTION) and message not in PYTHON_MESSAGES
]
TORCHSERVE_MESSAGES = [message for section, message in entries() if section == TORCHSERVE_SECTION]


@cache
def texts() -> frozenset[str]:
    """Return all strings in the code. Adjacent strings are joined; values in f-strings are replaced by HOLE."""
    paths = [path for name in SOURCES for path in (ROOT / name).rglob("*.py")]
    return frozenset(text for path in [*paths, ROOT / "scripts" / "setup"] for text in strings(path))


def strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def occurs(message: str, text: str) -> bool:
    """Return whether a text contains the parts of a message in order, with any text in place of each `...`."""
    parts = [part for part in message.split("...") if part]
    return re.search(".*?".join(map(re.escape, parts)), text, re.DOTALL) is not None


def test_page_has_messages_of_both_programs():
    assert len(PROJECT_MESSAGES) > 40
    assert len(TORCHSERVE_MESSAGES) > 5


@pytest.mark.parametrize("message", PROJECT_MESSAGES)
def test_documented_messages_are_in_the_code(message):
    assert any(occurs(message, text) for text in texts()), message


@cache
def jar() -> bytes:
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    with zipfile.ZipFile(folder / "frontend" / "model-server.jar") as archive:
        names = [name for name in archive.namelist() if name.startswith("org/pytorch/serve/")]
        classes = b"\n".join(archive.read(name) for name in names)
        libraries = "\n".join(archive.namelist()).encode()
    return classes + libraries + (folder / "service.py").read_bytes()


@pytest.mark.parametrize("message", TORCHSERVE_MESSAGES)
def test_documented_torchserve_messages_are_in_torchserve(message):
    java_format = message.replace("...", "%s")  # Java's format
    assert java_format.encode() in jar()


def test_unknown_message_does_not_occur():
    assert not any(occurs("port ... is quite free", text) for text in texts())
    assert occurs("port ... (...) is not free", f"port {HOLE} ({HOLE}) is not free{HOLE}: {HOLE}")
