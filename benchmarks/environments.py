"""Each peer's own virtual environment: its pinned packages, above those of .venv, so that torch is there once."""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from benchmarks.errors import Unavailable

PEERS = Path(__file__).resolve().parent / "peers"


def ready(name: str, folder: Path, requirements: Path | None = None) -> Path:
    """The `bin` folder of the environment `name` below `folder`, made where it is missing or out of date.

    Raises Unavailable with the last of what pip said.
    """
    requirements = requirements or PEERS / name / "requirements.txt"
    place = folder / name
    shared = sysconfig.get_paths()["purelib"]
    digest = hashlib.sha256(requirements.read_bytes() + f"{sys.version}{place}{shared}".encode()).hexdigest()
    stamp = place / "stamp"
    if stamp.exists() and stamp.read_text() == digest:
        return place / "bin"
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, symlinks=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    # Its own packages come first, those of .venv after them; pip leaves alone what lies outside the environment.
    (own / "shared.pth").write_text(f"{shared}\n")
    command = [str(place / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    done = subprocess.run([*command, "-r", str(requirements)], capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise Unavailable(f"not installed: {said[-1].removeprefix('ERROR: ')}")
    stamp.write_text(digest)
    return place / "bin"
