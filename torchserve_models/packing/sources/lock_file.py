"""The lock file models/lock.json, with the packed commit of each hub repository and the digests of its files.

Entries are keyed by repository, not by model, so that two sources of one model cannot be confused.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from torchserve_models.files import PathLock, write_atomic
from torchserve_models.packing.errors import LockFileError, explain_os_errors


@dataclass(frozen=True)
class LockedFile:
    """A file of a locked repository.

    Attributes:
        size: Size in bytes.
        oid: Digest listed by the hub: SHA-256 of a large file, git blob ID of a small file.
        sha256: SHA-256 digest of the content.
    """

    size: int
    oid: str
    sha256: str


@dataclass(frozen=True)
class LockedRepository:
    """The commit and files of a repository that later packs use."""

    revision: str
    license: str | None
    files: Mapping[str, LockedFile]


_LOCKED_REPOSITORY = TypeAdapter(LockedRepository)


def read(path: Path, hub_id: str) -> LockedRepository | None:
    """Return the entry of `hub_id`, or None if it was never packed. Raises LockFileError if the file is invalid."""
    entry = _load(path).get(hub_id)
    if entry is None:
        return None
    try:
        locked = _LOCKED_REPOSITORY.validate_python(entry, extra="forbid")
    except ValidationError as error:
        raise LockFileError(
            f"{path}: the entry {hub_id!r} is invalid. Restore the file, or remove the entry."
        ) from error
    if any("/" in name or name.startswith(".") for name in locked.files):
        raise LockFileError(
            f"{path}: the entry {hub_id!r} names a file outside the model folder. Restore the file, or remove the "
            f"entry."
        )
    return locked


def write(path: Path, hub_id: str, locked: LockedRepository) -> None:
    """Set one entry and keep the others, even if two processes write concurrently."""
    with explain_os_errors("writing the lock file"), PathLock(path.parent):
        content = {**_load(path), hub_id: asdict(locked)}
        write_atomic(path, json.dumps(content, indent=2, sort_keys=True) + "\n", sync=True)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LockFileError(f"{path} cannot be read ({error}). Restore or remove the file.") from error
    if not isinstance(content, dict):
        raise LockFileError(f"{path} must be a JSON object. Restore or remove the file.")
    return content
