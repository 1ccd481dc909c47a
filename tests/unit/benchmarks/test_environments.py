"""The peers' environments."""

import re
import subprocess

import pytest

from benchmarks import environments
from benchmarks.errors import Unavailable
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "path", [*environments.PEERS.glob("*/requirements.txt"), *(ROOT / "benchmarks").glob("*.txt")]
)
def test_every_package_is_pinned(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.+]*", line)] == []


def test_an_environment_that_cannot_be_made_says_why(tmp_path, monkeypatch):
    done = subprocess.CompletedProcess(
        [], 1, stderr="Looking\nERROR: No matching distribution found for x==1\n"
    )
    monkeypatch.setattr(environments.subprocess, "run", lambda *_, **__: done)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("x==1\n")
    with pytest.raises(Unavailable, match="No matching distribution found for x==1"):
        environments.ready("x", tmp_path / "venvs", requirements)
    assert not (tmp_path / "venvs" / "x" / "stamp").exists()


@pytest.mark.full
def test_an_environment_is_made_once_and_sees_what_the_project_has(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# nothing of its own\n")
    place = environments.ready("x", tmp_path / "venvs", requirements)
    seen = subprocess.run(
        [place / "python", "-c", "import yaml, sys; print(sys.prefix)"], capture_output=True, text=True
    )
    assert seen.stdout.strip() == str(place.parent)
    mark = place / "mark"
    mark.touch()
    assert environments.ready("x", tmp_path / "venvs", requirements) == place
    assert mark.exists()
    requirements.write_text("# changed\n")
    environments.ready("x", tmp_path / "venvs", requirements)
    assert not mark.exists()
