"""models/lock.json: which commit of each hub repository was packed first, and the digest of each of its files.

Keyed by repository, not by model: two sources of one model can then never be taken for each other.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchserve_models.packing.errors import BadLock, explained


@dataclass(frozen=True)
class LockedFile:
    """`oid`: the hub's own digest (sha256 of a large file, git's blob id of a small one); `sha256`: the content's."""

    size: int
    oid: str
    sha256: str


@dataclass(frozen=True)
class LockedRepository:
    """What later packs take, exactly."""

    revision: str
    license: str | None
    files: Mapping[str, LockedFile]


def read(path: Path, hub_id: str) -> LockedRepository | None:
    """The entry of `hub_id`, or None when it was never packed. Raises BadLock for a file that cannot be read."""
    entry = _load(path).get(hub_id)
    if entry is None:
        return None
    try:
        files = {str(name): LockedFile(**file) for name, file in entry["files"].items()}
        locked = LockedRepository(str(entry["revision"]), entry["license"], files)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadLock(
            f"{path}: the entry {hub_id!r} is not one that pack wrote; restore it or remove it."
        ) from error
    if any("/" in name or name.startswith(".") for name in files):
        raise BadLock(f"{path}: the entry {hub_id!r} names a file outside the model's folder; restore it.")
    return locked


def write(path: Path, hub_id: str, locked: LockedRepository) -> None:
    """Sets one entry and keeps the others, also where two packs do so at the same time."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained("writing the lock file"):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            content = {**_load(path), hub_id: asdict(locked)}
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(content, file, indent=2, sort_keys=True)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            os.close(folder)
            temporary.unlink(missing_ok=True)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadLock(f"{path} cannot be read ({error}); restore it or remove it.") from error
    if not isinstance(content, dict):
        raise BadLock(f"{path} is not a lock file; restore it or remove it.")
    return content
