"""Build options for the package index of this machine: pip's configuration files and the folders in them."""

import re
import subprocess
import sys
from pathlib import Path


def mounts() -> list[str]:
    """Return `-v PATH:PATH:ro` for `buildah build`, for each configuration file and local path of pip."""
    outputs = [pip("config", "debug"), pip("config", "list")]
    files = re.findall(r"^ +(/.*), exists: True$", outputs[0], re.MULTILINE)
    named = re.findall(r"(?:file://)?(/[\w./-]+)", re.sub(r"https?://\S+", "", outputs[1]))
    # Pages of an index link to files in their folder, and a certificate may be a link to a file in its folder.
    folders = {Path(name).parent for name in named if Path(name).exists()} | {Path(name) for name in files}
    outer = sorted(path for path in folders if not folders & set(path.parents))
    return [option for path in outer for option in ("-v", f"{path}:{path}:ro")]


def pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
