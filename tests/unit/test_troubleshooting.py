"""docs/troubleshooting.md quotes messages as they are: ours from our code, TorchServe's from the installed one."""

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
OTHERS, TORCHSERVES = "Other programs", "TorchServe's own words"
HOLE = "\0"
"""In place of what an f-string fills in."""


def entries() -> Iterator[tuple[str, str]]:
    """Each quoted message, with the section that it stands in."""
    section = ""
    for line in (ROOT / "docs" / "troubleshooting.md").read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("### "):
            yield section, line.removeprefix("### ").strip().removeprefix("`").removesuffix("`")
        elif line.startswith("- `"):
            yield section, line.removeprefix("- `").partition("`:")[0]


PYTHONS_OWN = {"ModuleNotFoundError", "Can't instantiate abstract class ..."}
OURS = [
    message
    for section, message in entries()
    if section not in (OTHERS, TORCHSERVES) and message not in PYTHONS_OWN
]
THEIRS = [message for section, message in entries() if section == TORCHSERVES]


@cache
def texts() -> frozenset[str]:
    """Every string of our code; adjacent parts are one, and what an f-string fills in is a HOLE."""
    paths = [path for name in SOURCES for path in (ROOT / name).rglob("*.py")]
    return frozenset(text for path in [*paths, ROOT / "scripts" / "setup"] for text in strings(path))


def strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def occurs(message: str, found: str) -> bool:
    """Its parts between the dots, in their order; at a dot the code has a hole, or goes on with anything."""
    parts = [part for part in message.split("...") if part]
    return re.search(".*?".join(map(re.escape, parts)), found, re.DOTALL) is not None


def test_the_page_has_both_kinds():
    assert len(OURS) > 40
    assert len(THEIRS) > 5


@pytest.mark.parametrize("message", OURS)
def test_our_messages_are_in_the_code(message):
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


@pytest.mark.parametrize("message", THEIRS)
def test_torchserves_messages_are_in_torchserve(message):
    said = message.replace("...", "%s")  # Java's format
    assert said.encode() in jar()


def test_a_wrong_message_is_not_found():
    assert not any(occurs("port ... is quite free", text) for text in texts())
    assert occurs("port ... (...) is not free", f"port {HOLE} ({HOLE}) is not free{HOLE}: {HOLE}")
