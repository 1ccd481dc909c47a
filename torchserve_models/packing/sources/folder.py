"""Hugging Face model folders as sources: starter weights and `--from FOLDER`."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from torchserve_models.packing.errors import InvalidSource, explain_os_errors
from torchserve_models.packing.sources.model_files import (
    CARD,
    CONFIG,
    TOKENIZER_CONFIG,
    ModelFile,
    check_is_model,
    check_safetensors,
    is_index,
    is_pickle,
    license_of_card,
    read_json,
    sha256_of,
    side_files,
    tensor_files,
    weight_files,
)
from torchserve_models.packing.tasks import TaskSpec, architecture_of, task_of


def inspect(folder: Path, source: str) -> tuple[TaskSpec, str]:
    """Return the task and architecture in the folder's config.json; `source` names the folder in errors."""
    if not folder.is_dir():
        raise InvalidSource(f"{source} is not a folder.")
    names = _list_files(folder, source)
    nested = (
        () if CONFIG in names else (f"{path.parent.name}/{CONFIG}" for path in folder.glob(f"*/{CONFIG}"))
    )
    check_is_model({*names, *nested}, source)
    config = read_json(folder / CONFIG, source)
    return task_of(config, source), architecture_of(config, source)


def collect(folder: Path, task: TaskSpec, source: str, pickled: bool = False) -> list[ModelFile]:
    """Return the files to pack, with their digests, sorted by name."""
    names = _list_files(folder, source)
    weights = weight_files(names, source, pickled)
    tensors = tensor_files(weights, folder / weights if is_index(weights) else None, names, source)
    config = read_json(folder / CONFIG, source)

    def read_tokenizer_config() -> Mapping[str, Any]:
        return read_json(folder / TOKENIZER_CONFIG, source)

    packed_names = sorted(
        {*side_files(names, task, source, config, read_tokenizer_config), weights, *tensors}
    )
    files = []
    with explain_os_errors(f"reading {source}"):
        for name in tensors:
            if not is_pickle(name):
                check_safetensors(folder / name, source)
        for name in packed_names:
            path = folder / name
            files.append(ModelFile(name, path, path.stat().st_size, sha256_of(path)))
    return files


def license(folder: Path) -> str | None:
    """Return the license in the front matter of the folder's README.md, or None."""
    card = folder / CARD
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    stop = next((at for at, line in enumerate(lines[1:], 1) if line.strip() == "---"), 0)
    try:
        front = yaml.safe_load("\n".join(lines[1:stop]))
    except yaml.YAMLError:
        return None
    return license_of_card(front) if isinstance(front, dict) else None


def _list_files(folder: Path, source: str) -> set[str]:
    """Return the names of the regular files in the folder, following links.

    Raises InvalidSource for a dangling link or a link to a device, instead of ignoring the file.
    """
    names = set()
    with explain_os_errors(f"reading {source}"), os.scandir(folder) as entries:
        for entry in entries:
            try:
                mode = entry.stat().st_mode
            except FileNotFoundError as error:
                raise InvalidSource(
                    f"{entry.name} of {source} is a link to a file that does not exist. Restore the file or remove "
                    f"the link."
                ) from error
            if stat.S_ISREG(mode):
                names.add(entry.name)
            elif not stat.S_ISDIR(mode) and entry.name.endswith((".json", ".safetensors")):
                raise InvalidSource(f"{entry.name} of {source} is not a regular file. Replace it with one.")
    return names
