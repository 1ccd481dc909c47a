"""A repository of the hub as the source of a model: the first time from its branch, later exactly as locked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchserve_models.packing.errors import BadSource, WrongContent
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
from torchserve_models.packing.tasks import Task, architecture_of, task_of

Report = Callable[[str], None]


@dataclass(frozen=True)
class Snapshot:
    """A commit's files on this machine, and what its config.json says."""

    locked: LockedRepository
    files: tuple[ModelFile, ...]
    task: Task
    architecture: str


def first(hub_id: str, report: Report, pickled: bool = False) -> Snapshot:
    """The commit that the branch is at, each file checked against the digest in the hub's own listing.

    The configuration comes first: an architecture that cannot be served is known before a gigabyte is downloaded.
    """
    repository = hub.resolve(hub_id)
    check_is_model(repository.files, hub_id)
    got: dict[str, ModelFile] = {}

    def get(name: str) -> Path:
        if name not in got:
            got[name] = download.fetch(hub_id, repository.revision, name, repository.files[name], report)
        return got[name].path

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
            check_safetensors(got[name].path, hub_id)
    locked_files = {
        name: LockedFile(file.size, repository.files[name].oid, file.sha256) for name, file in got.items()
    }
    locked = LockedRepository(repository.revision, repository.license, locked_files)
    return Snapshot(locked, _sorted(got), task, architecture)


def again(hub_id: str, locked: LockedRepository, report: Report, pickled: bool = False) -> Snapshot:
    """Exactly the files of the lock; WrongContent when one of them is another."""
    weight_files(locked.files, hub_id, pickled)
    got = {}
    for name, want in locked.files.items():
        file = download.fetch(hub_id, locked.revision, name, HubFile(want.oid, want.size), report)
        if file.sha256 != want.sha256:
            raise WrongContent(f"{name} of {hub_id} is not the one in models/lock.json. Restore that file.")
        got[name] = file
    if CONFIG not in got:
        raise BadSource(f"models/lock.json has no {CONFIG} for {hub_id}; restore it, or use --update.")
    config = read_json(got[CONFIG].path, hub_id)
    return Snapshot(locked, _sorted(got), task_of(config, hub_id), architecture_of(config, hub_id))


def is_cached(hub_id: str, locked: LockedRepository) -> bool:
    """Whether the cache holds every locked file in its size; the digests are looked at when they are taken."""
    for name, want in locked.files.items():
        path = download.cached(hub_id, locked.revision, name)
        if path is None or path.stat().st_size != want.size:
            return False
    return True


def _sorted(files: Mapping[str, ModelFile]) -> tuple[ModelFile, ...]:
    return tuple(files[name] for name in sorted(files))
