"""Virtual environments of the peers."""

import re
import subprocess

import pytest

from benchmarks import environments
from benchmarks.errors import SystemUnavailable
from tests.conftest import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.txt")), ids=str)
def test_every_package_is_pinned(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.+]*", line)] == []


@pytest.mark.full
def test_environment_is_created_once_and_shares_packages(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# no packages\n")
    bin_folder = environments.install("x", tmp_path / "venvs", requirements)
    command = [bin_folder / "python", "-c", "import yaml, sys; print(sys.prefix)"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == str(bin_folder.parent)
    mark = bin_folder / "mark"
    mark.touch()
    assert environments.install("x", tmp_path / "venvs", requirements) == bin_folder
    assert mark.exists()
    requirements.write_text("./missing\n")
    with pytest.raises(SystemUnavailable, match=r"pip install failed: .*missing"):
        environments.install("x", tmp_path / "venvs", requirements)
    assert not mark.exists()
    assert not (bin_folder.parent / "stamp").exists()
