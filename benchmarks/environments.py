"""Folders that are filled once: weights, and virtual environments of the peers with pinned packages."""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.errors import SystemUnavailable

PEERS = Path(__file__).resolve().parent / "peers"


def install(name: str, venvs: Path, requirements: Path) -> Path:
    """Create the environment `venvs`/`name` if it is missing or outdated, and return its `bin` folder.

    Packages that are not in the requirements, such as torch, come from this project's environment.

    Raises:
        SystemUnavailable: pip failed. The message contains the last error.
    """
    folder = venvs / name
    shared = sysconfig.get_paths()["purelib"]
    inputs = requirements.read_bytes() + f"{sys.version}{folder}{shared}".encode()
    return fill_once(folder, inputs, partial(_create, shared=shared, requirements=requirements)) / "bin"


def _create(folder: Path, shared: str, requirements: Path) -> None:
    venv.create(folder, symlinks=True)
    site_packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # The environment's packages precede the shared packages, which pip does not change.
    (site_packages / "shared.pth").write_text(f"{shared}\n")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    result = subprocess.run([*pip, "-r", str(requirements)], capture_output=True, text=True)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise SystemUnavailable(f"pip install failed: {errors[-1].removeprefix('ERROR: ')}")


def fill_once(folder: Path, inputs: bytes, fill: Callable[[Path], object]) -> Path:
    """Clear and fill `folder` unless it was already filled with the same inputs, and return it."""
    stamp = folder / "stamp"
    digest = hashlib.sha256(inputs).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fill(folder)
        stamp.write_text(digest)  # last: after an interruption, the folder is filled again
    return folder
