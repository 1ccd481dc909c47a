"""Weights that are no safetensors become some, in a process of its own: packing itself imports no torch."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchserve_models.packing.errors import BadSource, PackingError
from torchserve_models.packing.sources.labels import read_labels
from torchserve_models.packing.sources.model_files import ModelFile, sha256_of
from torchserve_models.paths import ROOT

TORCHVISION = "torchvision:"
REFUSED = 3
"""The exit code of the process where the files are to blame; its last line is then the whole message."""


@dataclass(frozen=True)
class StateDict:
    """What belongs to --from torchvision:ARCH. `transforms` names those weights of torchvision whose are taken."""

    file: Path
    labels: Path
    transforms: str | None = None


@dataclass(frozen=True)
class Converted:
    """A model's files in `target`, and in words how its images are prepared."""

    files: tuple[ModelFile, ...]
    transforms: str


def torchvision(architecture: str, given: StateDict, target: Path, handlers: Path) -> Converted:
    """Fills `target` with config.json, model.safetensors and preprocess.json. Raises BadSource."""
    if not given.file.is_file():
        raise BadSource(f"There is no file {given.file}, which --state-dict names.")
    labels = target / "labels.json"
    labels.write_text(json.dumps(read_labels(given.labels)))
    model = target / "model"
    options = ["--transforms", given.transforms] if given.transforms else []
    arguments = [architecture, str(given.file.absolute()), str(labels), str(model), *options]
    said = _run(["torchvision", *arguments], handlers)
    return Converted(_files(model), said["transforms"])


def unpickled(folder: Path, auto_class: str, target: Path, handlers: Path) -> ModelFile:
    """model.safetensors in `target` of the pytorch_model.bin in `folder`. Raises BadSource."""
    _run(["transformers", auto_class, str(folder), str(target)], handlers)
    return next(file for file in _files(target) if file.name == "model.safetensors")


def _files(folder: Path) -> tuple[ModelFile, ...]:
    return tuple(
        ModelFile(path.name, path, path.stat().st_size, sha256_of(path)) for path in sorted(folder.iterdir())
    )


def _run(arguments: Sequence[str], handlers: Path) -> dict[str, Any]:
    """What the process says of its work; `handlers` is the folder that has the package."""
    path = os.pathsep.join(map(str, (handlers.absolute(), ROOT)))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "torchserve_models.packing.sources.convert", *arguments],
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        said: dict[str, Any] = json.loads(done.stdout)
        return said
    words = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        words = [f"the process was ended by {name}, as the system does where memory runs out"]
    if done.returncode == REFUSED:
        raise BadSource(words[-1])
    raise PackingError(f"Reading the weights failed: {words[-1]}")
