"""Run the conversion of weights to safetensors in a separate process, because packing does not import torch."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchserve_models.packing.errors import InvalidSource, PackingError
from torchserve_models.packing.request import StateDict
from torchserve_models.packing.sources.labels import read_labels
from torchserve_models.packing.sources.model_files import ModelFile, sha256_of
from torchserve_models.paths import ROOT
from torchserve_models.processes import run_module

REJECTED_EXIT_CODE = 3
"""Exit code of the process for invalid files; the last line of its stderr is then the error message."""


@dataclass(frozen=True)
class ConvertedModel:
    """A model converted to safetensors.

    Attributes:
        files: The files of the model.
        transforms: Human-readable description of its image transforms.
    """

    files: tuple[ModelFile, ...]
    transforms: str


def convert_torchvision(
    architecture: str, state_dict: StateDict, target: Path, handlers: Path
) -> ConvertedModel:
    """Convert a state dict to config.json, model.safetensors and preprocess.json in `target`.

    Raises:
        InvalidSource: The files are missing or do not fit the architecture.
    """
    if not state_dict.file.is_file():
        raise InvalidSource(
            f"File {state_dict.file} does not exist. Pass the file with the weights to --state-dict."
        )
    labels = target / "labels.json"
    labels.write_text(json.dumps(read_labels(state_dict.labels)))
    model = target / "model"
    options = ["--transforms", state_dict.transforms] if state_dict.transforms else []
    arguments = [architecture, str(state_dict.file.absolute()), str(labels), str(model), *options]
    result = _run(["torchvision", *arguments], handlers)
    return ConvertedModel(_files(model), result["transforms"])


def convert_pickle(folder: Path, auto_class: str, target: Path, handlers: Path) -> ModelFile:
    """Convert pytorch_model.bin in `folder` to model.safetensors in `target`. Raises InvalidSource."""
    _run(["transformers", auto_class, str(folder), str(target)], handlers)
    return next(file for file in _files(target) if file.name == "model.safetensors")


def _files(folder: Path) -> tuple[ModelFile, ...]:
    return tuple(
        ModelFile(path.name, path, path.stat().st_size, sha256_of(path)) for path in sorted(folder.iterdir())
    )


def _run(arguments: Sequence[str], handlers: Path) -> dict[str, Any]:
    """Run convert.py and return the JSON that it prints; `handlers` is the parent folder of handlers/."""
    path = os.pathsep.join(map(str, (handlers.absolute(), ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    result = run_module("torchserve_models.packing.sources.convert", arguments, environment)
    if result.returncode == 0:
        printed: dict[str, Any] = json.loads(result.stdout)
        return printed
    if result.returncode == REJECTED_EXIT_CODE:
        raise InvalidSource(result.message or "no message")
    raise PackingError(f"Reading the weights failed: {result.message or 'no message'}")
