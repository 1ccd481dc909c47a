"""Cache the results of slow fixtures for further test processes and runs."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from filelock import FileLock


def cached_folder(
    config: pytest.Config,
    name: str,
    sources: Iterable[Path],
    packages: Sequence[str],
    make: Callable[[Path], None],
    state: str = "",
) -> Path:
    """Return a folder in pytest's cache that `make` has filled.

    It is made anew when the content of a file in `sources` (files or folders) or the version of one of the installed
    `packages`, or `state`, changes.
    """
    assert config.cache is not None
    parent = config.cache.mkdir(name)
    digest = hashlib.sha256(repr(([version(package) for package in packages], state)).encode())
    for source in sources:
        paths = sorted(source.rglob("*")) if source.is_dir() else [source]
        for path in paths:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.name}\n".encode() + path.read_bytes())
    folder = parent / digest.hexdigest()[:32]
    with FileLock(parent / "lock"):
        if not folder.exists():
            for stale in parent.iterdir():
                if stale.is_dir():
                    shutil.rmtree(stale)
            partial = parent / "partial"
            partial.mkdir()
            make(partial)
            partial.rename(folder)
    return folder
