"""A local folder in the hub's layout as the source of a model: the starters, and what --from points at."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from torchserve_models.packing.errors import BadSource, explained
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
from torchserve_models.packing.tasks import Task, architecture_of, task_of


def inspect(folder: Path, source: str) -> tuple[Task, str]:
    """Task and architecture from the folder's config.json; `source` is what errors call the folder."""
    if not folder.is_dir():
        raise BadSource(f"{source} is not a folder.")
    names = _names(folder, source)
    nested = (
        () if CONFIG in names else (f"{path.parent.name}/{CONFIG}" for path in folder.glob(f"*/{CONFIG}"))
    )
    check_is_model({*names, *nested}, source)
    config = read_json(folder / CONFIG, source)
    return task_of(config, source), architecture_of(config, source)


def collect(folder: Path, task: Task, source: str, pickled: bool = False) -> list[ModelFile]:
    """The files of the folder that the archive needs, with their digests, sorted by name."""
    names = _names(folder, source)
    weights = weight_files(names, source, pickled)
    tensors = tensor_files(weights, folder / weights if is_index(weights) else None, names, source)
    config = read_json(folder / CONFIG, source)

    def read_tokenizer_config() -> Mapping[str, Any]:
        return read_json(folder / TOKENIZER_CONFIG, source)

    wanted = sorted({*side_files(names, task, source, config, read_tokenizer_config), weights, *tensors})
    files = []
    with explained(f"reading {source}"):
        for name in tensors:
            if not is_pickle(name):
                check_safetensors(folder / name, source)
        for name in wanted:
            path = folder / name
            files.append(ModelFile(name, path, path.stat().st_size, sha256_of(path)))
    return files


def license(folder: Path) -> str | None:
    """What the front matter of the folder's README.md says, or None."""
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


def _names(folder: Path, source: str) -> set[str]:
    """Names of the regular files right in the folder; a link counts as what it leads to.

    A dangling link or one to a device is an error here rather than a file that is quietly missing.
    """
    names = set()
    with explained(f"reading {source}"), os.scandir(folder) as entries:
        for entry in entries:
            try:
                mode = entry.stat().st_mode
            except FileNotFoundError as error:
                raise BadSource(
                    f"{entry.name} of {source} is a link to a file that does not exist."
                ) from error
            if stat.S_ISREG(mode):
                names.add(entry.name)
            elif not stat.S_ISDIR(mode) and entry.name.endswith((".json", ".safetensors")):
                raise BadSource(f"{entry.name} of {source} is not a regular file.")
    return names
