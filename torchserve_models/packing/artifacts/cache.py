"""The cache of prepared engine files, with one folder per set of inputs for each model name."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchserve_models.files import PathLock, write_atomic

MAX_ENTRIES = 3
"""Maximum number of entries per model name; the most recently used ones are kept."""

PARTIAL = "partial-"
"""Prefix of folders that are being created or removed."""

_IMAGES = "images"
"""Name of the file with the path of the last calibration images."""


@contextmanager
def lock_cache(cache: Path) -> Iterator[None]:
    """Lock the cache of a model name, so that concurrent packs share prepared files.

    Incomplete entries of killed processes are removed.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with PathLock(cache):
        _remove_partial(cache)
        yield


def new_partial(cache: Path) -> Path:
    """Return a unique path for an incomplete entry, as the child process of a killed pack may still be writing."""
    return cache / f"{PARTIAL}{secrets.token_hex(8)}"


def prune(cache: Path, used: Path) -> None:
    """Mark the entry `used` as the newest, and remove all but the newest MAX_ENTRIES entries.

    Entries are renamed before they are removed, so that a partly removed entry is never used.
    """
    os.utime(used)
    entries = sorted(
        (path for path in cache.iterdir() if path.is_dir()),
        key=lambda path: (path == used, path.stat().st_mtime_ns),
    )
    for old in entries[:-MAX_ENTRIES]:
        old.rename(cache / f"{PARTIAL}{old.name}")
    _remove_partial(cache)


def write_images_folder(cache: Path, images: Path) -> None:
    """Store the path of the calibration images."""
    write_atomic(cache / _IMAGES, os.fsencode(images.resolve()))


def read_images_folder(cache: Path) -> Path:
    """Return the path of the last calibration images.

    Raises:
        OSError: No path is stored.
    """
    content = (cache / _IMAGES).read_bytes()
    if not content:
        raise FileNotFoundError(errno.ENOENT, "The file is empty", str(cache / _IMAGES))
    return Path(os.fsdecode(content))


def _remove_partial(cache: Path) -> None:
    for path in cache.glob(f"{PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in cache.glob(f".{_IMAGES}.*.tmp"):
        path.unlink(missing_ok=True)
