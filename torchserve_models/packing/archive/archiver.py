"""torch-model-archiver, kept apart: it lays out everything but the weights, in a folder of its own.

It stages in the system's temporary folder under the model's name, splits its options at commas and expands
wildcards in them, so it runs as its own process, in a private folder that is its TMPDIR too, with short names.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torchserve_models.packing.archive.mar_file import Member
from torchserve_models.packing.errors import PackingError, explained

MODEL_CONFIG = "model-config.yaml"
MANIFEST = "MAR-INF/MANIFEST.json"

_CREATED_ON = (
    "01/01/1980 00:00:00"  # the archiver writes the clock here; the same inputs must give the same bytes
)


def lay_out(name: str, version: str, entry: str, config: bytes, extra: Mapping[str, bytes]) -> list[Member]:
    """The members that torch-model-archiver makes of an entry, a configuration and `extra` (member name -> content).

    `extra` has to hold the entry's own content under its name, which becomes the manifest's handler.
    Raises PackingError with the archiver's own words when it fails.
    """
    with explained("staging the archive"), tempfile.TemporaryDirectory(prefix="packing-") as temporary:
        stage = Path(temporary)
        for folder in ("tmp", "out", "extra"):
            (stage / folder).mkdir()
        (stage / MODEL_CONFIG).write_bytes(config)
        for member, content in extra.items():
            path = stage / member if member == entry else stage / "extra" / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        _run(stage, name, version, entry)
        made = stage / "out" / name
        found = {
            path.relative_to(made).as_posix(): path.read_bytes() for path in made.rglob("*") if path.is_file()
        }
    manifest = found.pop(MANIFEST, b"{}")
    if found != {**extra, MODEL_CONFIG: config}:
        raise PackingError("torch-model-archiver did not lay out the files it was given; run scripts/setup.")
    return [Member.of_bytes(*item) for item in {**found, MANIFEST: _timeless(manifest)}.items()]


def _run(stage: Path, name: str, version: str, entry: str) -> None:
    options = {
        "--model-name": name,
        "--version": version,
        "--handler": entry,
        "--extra-files": "extra",
        "--config-file": MODEL_CONFIG,
        "--export-path": "out",
        "--archive-format": "no-archive",
    }
    command = [sys.executable, "-I", "-m", "model_archiver.model_packaging"]
    command += [part for option in options.items() for part in option]
    environment = {**os.environ, "TMPDIR": str(stage / "tmp")}
    done = subprocess.run(command, cwd=stage, env=environment, capture_output=True, check=False)
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        if "No space left" in words[-1] or "Disk quota" in words[-1]:
            raise OSError(28, "No space left on device", str(stage))
        raise PackingError(f"torch-model-archiver failed on {name}: {words[-1]}")


def _timeless(manifest: bytes) -> bytes:
    content = json.loads(manifest)
    content["createdOn"] = _CREATED_ON
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
