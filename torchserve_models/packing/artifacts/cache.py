"""The folder that holds what was prepared for one name: a folder for each set of inputs, whole or not there."""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT = 3
"""How many sets of inputs of one name the cache holds: those used last."""

PARTIAL = "partial-"
"""Before the name of what is being made or thrown away."""

_IMAGES = "images"  # beside the sets of inputs: the folder that int8 was last made with


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Two packs of one name prepare one after the other; the second then finds what the first has made.

    What packs that were killed outright have left is gone then.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folder = os.open(cache, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        _remove_partial(cache)
        yield
    finally:
        os.close(folder)


def fresh(cache: Path) -> Path:
    """Where to make a set of inputs. Never the same twice: the process of a pack that was killed may still write."""
    return cache / f"{PARTIAL}{secrets.token_hex(8)}"


def prune(cache: Path, used: Path) -> None:
    """Keep the sets used last, now `used`. Others are renamed first: half of one must not pass for a whole."""
    os.utime(used)
    entries = sorted(
        (path for path in cache.iterdir() if path.is_dir()),
        key=lambda path: (path == used, path.stat().st_mtime_ns),
    )
    for old in entries[:-KEPT]:
        old.rename(cache / f"{PARTIAL}{old.name}")
    _remove_partial(cache)


def remember(cache: Path, images: Path) -> None:
    """Keep in mind the folder that int8 was made with."""
    partial = cache / f"{PARTIAL}{_IMAGES}"
    partial.write_bytes(os.fsencode(images.resolve()))
    partial.replace(cache / _IMAGES)


def remembered(cache: Path) -> Path:
    """The folder that int8 was last made with. Raises OSError where it is not known."""
    content = (cache / _IMAGES).read_bytes()
    if not content:
        raise FileNotFoundError(errno.ENOENT, "The file is empty", str(cache / _IMAGES))
    return Path(os.fsdecode(content))


def _remove_partial(cache: Path) -> None:
    for path in cache.glob(f"{PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)
