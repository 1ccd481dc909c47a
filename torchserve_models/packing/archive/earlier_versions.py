"""Keep earlier archives of a model in the store as NAME-VERSION.mar, for rollbacks."""

import os
from contextlib import suppress
from pathlib import Path

from torchserve_models.packing.archive.provenance import read_provenance
from torchserve_models.packing.errors import InvalidArchive


def keep(path: Path, new_version: str) -> Path | None:
    """Keep the archive at `path`, which is about to be replaced, as the hard link NAME-VERSION.mar.

    Returns:
        The link, or None if there is no packed archive, the archive already has the new version, or the file system
        has no hard links.
    """
    try:
        provenance = read_provenance(path)
    except InvalidArchive:
        return None
    link = path.with_name(f"{path.stem}-{provenance.version}.mar")
    if provenance.name != path.stem or provenance.version == new_version:
        return None
    with suppress(OSError):
        if not link.exists():
            os.link(path, link)
        os.utime(link)
        return link
    return None


def prune(path: Path, count: int) -> None:
    """Remove all earlier archives of the model at `path` except the `count` most recently replaced."""
    earlier = [
        archive for archive in path.parent.glob(f"{path.stem}-*.mar") if is_earlier(archive, path.stem)
    ]
    for archive in sorted(earlier, key=lambda archive: archive.stat().st_mtime_ns, reverse=True)[count:]:
        with suppress(OSError):
            archive.unlink()


def is_earlier(path: Path, name: str | None = None) -> bool:
    """Return whether the file name and provenance are those of an earlier archive, optionally of model `name`."""
    try:
        provenance = read_provenance(path)
    except InvalidArchive:
        return False
    return path.stem == f"{provenance.name}-{provenance.version}" and name in (None, provenance.name)
