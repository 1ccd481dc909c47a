"""scripts/run and the entry points: the set-up that a command needs, then the command."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

RECORD = '#!/bin/sh\nfor word; do echo "$word"; done > "{}"\n'
SCRIPTS = filter(Path.is_file, (ROOT / "scripts").iterdir())
ENTRY_POINTS = [path.name for path in SCRIPTS if '/run" ' in path.read_text()]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose set-up and Python record their arguments in files."""
    root = tmp_path / "check out"
    (root / "scripts").mkdir(parents=True)
    for name in ("run", *ENTRY_POINTS):
        shutil.copy(ROOT / "scripts" / name, root / "scripts")
    for path in ("scripts/setup", ".venv/bin/python", ".venv-demo/bin/python"):
        program = root / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(RECORD.format(f"{program}.arguments"))
        program.chmod(0o755)
    return root


def run(checkout: Path, name: str, *arguments: str) -> tuple[list[str], list[str], str]:
    """Return the arguments of set-up and of Python, and the environment's folder."""
    subprocess.run([checkout / "scripts" / name, *arguments], cwd="/", check=True, env=os.environ)
    (command,) = checkout.glob(".venv*/bin/python.arguments")
    setup = (checkout / "scripts/setup.arguments").read_text().splitlines()
    return setup, command.read_text().splitlines(), command.parent.parent.name


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_entry_point_runs_its_command(checkout: Path, name: str) -> None:
    setup, python, folder = run(checkout, name, "a b", "--option=1")
    assert python == ["-P", "-m", "torchserve_models", name, "a b", "--option=1"]
    expected = (["--quiet", "--demo"], ".venv-demo") if name == "demo" else (["--quiet"], ".venv")
    assert (setup, folder) == expected
    assert len((ROOT / "scripts" / name).read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["resnet-50", "--calibrate", "photos"], ["--quiet", "--calibrate"]),
        (["resnet-50", "--calibrate=photos"], ["--quiet", "--calibrate"]),
        (["resnet-50", "--calibrate", "none"], ["--quiet"]),
        (["resnet-50", "--calibrate=none"], ["--quiet"]),
    ],
)
def test_calibration_is_installed_where_it_is_used(
    checkout: Path, arguments: list[str], options: list[str]
) -> None:
    assert run(checkout, "pack", *arguments)[0] == options
