"""Options that let a build use this machine's package index: pip's configuration files and the folders they name."""

import re
import subprocess
import sys
from pathlib import Path


def mounts() -> list[str]:
    """For `buildah build`: -v PATH:PATH:ro for each configuration file and local path that pip says it uses."""
    told = [pip("config", "debug"), pip("config", "list")]
    files = re.findall(r"^ +(/.*), exists: True$", told[0], re.MULTILINE)
    named = re.findall(r"(?:file://)?(/[\w./-]+)", re.sub(r"https?://\S+", "", told[1]))
    # An index's pages have links to files beside them, and a certificate may be a link into its folder.
    folders = {Path(name).parent for name in named if Path(name).exists()} | {Path(name) for name in files}
    outer = sorted(path for path in folders if not folders & set(path.parents))
    return [option for path in outer for option in ("-v", f"{path}:{path}:ro")]


def pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
