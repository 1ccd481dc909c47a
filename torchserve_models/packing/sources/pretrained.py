"""Hub repositories as sources: the latest commit for the first pack, the locked commit for later ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchserve_models.packing.errors import ChecksumMismatch, InvalidSource
from torchserve_models.packing.request import Report
from torchserve_models.packing.sources import download, hub
from torchserve_models.packing.sources.hub import HubFile
from torchserve_models.packing.sources.lock_file import LockedFile, LockedRepository
from torchserve_models.packing.sources.model_files import (
    CONFIG,
    TOKENIZER_CONFIG,
    ModelFile,
    check_is_model,
    check_safetensors,
    is_index,
    is_pickle,
    read_json,
    side_files,
    tensor_files,
    weight_files,
)
from torchserve_models.packing.tasks import TaskSpec, architecture_of, task_of


@dataclass(frozen=True)
class Snapshot:
    """The downloaded files of a commit, and the task and architecture in its config.json."""

    locked: LockedRepository
    files: tuple[ModelFile, ...]
    task: TaskSpec
    architecture: str


def download_latest(hub_id: str, report: Report, pickled: bool = False) -> Snapshot:
    """Download the latest commit of the default branch, and verify each file against the hub's digests.

    The configuration is downloaded first, so an unsupported architecture is rejected before the weights are
    downloaded.
    """
    repository = hub.read_repository(hub_id)
    check_is_model(repository.files, hub_id)
    downloaded: dict[str, ModelFile] = {}

    def get(name: str) -> Path:
        if name not in downloaded:
            downloaded[name] = download.fetch(
                hub_id, repository.revision, name, repository.files[name], report
            )
        return downloaded[name].path

    config = read_json(get(CONFIG), hub_id)
    task, architecture = task_of(config, hub_id), architecture_of(config, hub_id)
    weights = weight_files(repository.files, hub_id, pickled)
    index = get(weights) if is_index(weights) else None
    tensors = tensor_files(weights, index, repository.files, hub_id)

    def read_tokenizer_config() -> Mapping[str, Any]:
        return read_json(get(TOKENIZER_CONFIG), hub_id)

    sides = side_files(repository.files, task, hub_id, config, read_tokenizer_config)
    for name in (*sides, weights, *tensors):
        get(name)
    for name in tensors:
        if not is_pickle(name):
            check_safetensors(downloaded[name].path, hub_id)
    locked_files = {
        name: LockedFile(file.size, repository.files[name].oid, file.sha256)
        for name, file in downloaded.items()
    }
    locked = LockedRepository(repository.revision, repository.license, locked_files)
    return Snapshot(locked, _sorted(downloaded), task, architecture)


def download_locked(hub_id: str, locked: LockedRepository, report: Report, pickled: bool = False) -> Snapshot:
    """Return the locked files, downloaded if necessary. Raises ChecksumMismatch if a file differs."""
    weight_files(locked.files, hub_id, pickled)
    downloaded = {}
    for name, locked_file in locked.files.items():
        file = download.fetch(
            hub_id, locked.revision, name, HubFile(locked_file.oid, locked_file.size), report
        )
        if file.sha256 != locked_file.sha256:
            raise ChecksumMismatch(
                f"{name} of {hub_id} does not match its SHA-256 digest in models/lock.json. Restore models/lock.json."
            )
        downloaded[name] = file
    if CONFIG not in downloaded:
        raise InvalidSource(
            f"models/lock.json lists no {CONFIG} for {hub_id}. Restore models/lock.json, or use --update."
        )
    config = read_json(downloaded[CONFIG].path, hub_id)
    return Snapshot(locked, _sorted(downloaded), task_of(config, hub_id), architecture_of(config, hub_id))


def is_cached(hub_id: str, locked: LockedRepository) -> bool:
    """Return whether the cache has every locked file with its expected size. Digests are not checked here."""
    for name, locked_file in locked.files.items():
        path = download.find_cached(hub_id, locked.revision, name)
        if path is None or path.stat().st_size != locked_file.size:
            return False
    return True


def _sorted(files: Mapping[str, ModelFile]) -> tuple[ModelFile, ...]:
    return tuple(files[name] for name in sorted(files))
