"""The files, modules, commands and options in the documentation exist."""

import contextlib
import importlib.util
import io
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.conftest import ROOT
from torchserve_models.cli.program import main

PAGES = [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING"))]
FOLDERS = "handlers|torchserve_models|tests|scripts|deploy|models|training|benchmarks|requirements|docs"
MADE_BY_USERS = (
    "models/embedder/",
    "models/pets",
    "models/lock.json",
    "deploy/.env",
    "deploy/compose.override",
)
SUBCOMMANDS = ("keys", "manage")
"""Commands whose options belong to their subcommands."""


def code_of(page: Path) -> Iterator[str]:
    """Return the code spans and the lines of fenced blocks of a page, with continuation lines joined."""
    text = page.read_text()
    fence = re.compile(r"^```[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for block in fence.findall(text):
        yield from re.sub(r"(\\\n|\n(?= ))\s*", " ", block).splitlines()
    yield from re.findall(r"`([^`]+)`", fence.sub("", text).replace("\n", " "))


def paths(page: Path) -> set[str]:
    """Return the repository paths in a page, without those that contain a placeholder such as NAME."""
    pattern = rf"(?<![\w./-])(?:\.\./)?((?:{FOLDERS})/[\w./*-]+)"
    named_paths = {match.rstrip("./") for code in code_of(page) for match in re.findall(pattern, code)}
    return {
        path
        for path in named_paths
        if not re.search(r"[A-Z*]{2}", path) and not path.startswith(MADE_BY_USERS)
    }


def modules(page: Path) -> set[str]:
    """Return the modules of this repository that a page runs with `python -m`."""
    names = {name for code in code_of(page) for name in re.findall(r"python -m ([\w.]+)", code)}
    return {name for name in names if name.split(".")[0] in FOLDERS.split("|")}


def command_lines(page: Path) -> set[tuple[str, ...]]:
    """Return the words of each command of a page, without arguments after ` -- ` for another program."""
    pattern = r"(?:(?<![\w/])scripts/|(?<![\w/-])torchserve[-_]models )([a-z][a-z-]*(?: [^|;#()]*)?)"
    return {
        tuple(re.split(r"[\s\[\]|]+", match.partition(" -- ")[0]))
        for code in code_of(page)
        for match in re.findall(pattern, code)
    }


@cache
def help_of(*command: str) -> str:
    output = io.StringIO()
    # Commands may end by SystemExit or by a return value.
    with (
        contextlib.redirect_stdout(output),
        patch.object(sys, "argv", ["torchserve-models"]),
        contextlib.suppress(SystemExit),
    ):
        main([*command, "--help"])
    return output.getvalue()


def documented_options(words: tuple[str, ...]) -> str:
    """Return the text that lists the options of a command: its help, or the source of a shell script."""
    script = ROOT / "scripts" / words[0]
    if script.exists() and "/run" not in script.read_text():
        return script.read_text()
    if words[0] in SUBCOMMANDS and len(words) > 1 and words[1].isascii() and words[1].islower():
        return help_of(*words[:2])
    return help_of(words[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_documented_paths_exist(page):
    assert [path for path in sorted(paths(page)) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_documented_modules_can_be_run(page):
    for module in sorted(modules(page)):
        spec = importlib.util.find_spec(module)
        assert spec, module
        assert spec.submodule_search_locations is None or importlib.util.find_spec(f"{module}.__main__"), (
            module
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_documented_options_exist(page):
    unknown = [
        (words[0], option)
        for words in sorted(command_lines(page))
        for option in (word.partition("=")[0].strip("`,.") for word in words if word.startswith("--"))
        if not re.search(rf"{re.escape(option)}\b", documented_options(words))
    ]
    assert unknown == []


def test_references_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Run `scripts/serve NAME --gone` or `python -m torchserve_models.lost`; see `handlers/none.py`.\n\n"
        "```bash\nscripts/manage scale NAME 2 \\\n  --now\n```\n"
    )
    assert paths(page) == {"handlers/none.py", "scripts/serve", "scripts/manage"}
    assert modules(page) == {"torchserve_models.lost"}
    assert command_lines(page) == {("serve", "NAME", "--gone"), ("manage", "scale", "NAME", "2", "--now")}
    assert "--gone" not in documented_options(("serve",))
    assert "--now" in documented_options(("manage", "scale"))
