"""Earlier archives of a model in the store, NAME-VERSION.mar beside NAME.mar: what a rollback goes back to."""

import os
from contextlib import suppress
from pathlib import Path

from torchserve_models.packing.archive.provenance import read_provenance
from torchserve_models.packing.errors import BadArchive

KEPT = 1
"""How many earlier archives of each model stay."""


def keep(path: Path, new_version: str) -> Path | None:
    """A hard link NAME-VERSION.mar to the archive at `path`, which a pack is about to replace.

    None where there is no archive of ours, it has the new version, or links cannot be made.
    """
    try:
        old = read_provenance(path)
    except BadArchive:
        return None
    link = path.with_name(f"{path.stem}-{old.version}.mar")
    if old.name != path.stem or old.version == new_version:
        return None
    with suppress(OSError):
        if not link.exists():
            os.link(path, link)
        os.utime(link)
        return link
    return None


def prune(path: Path, count: int) -> None:
    """Remove the earlier archives of the model at `path`, but for those that were replaced last."""
    earlier = [each for each in path.parent.glob(f"{path.stem}-*.mar") if is_earlier(each, path.stem)]
    for each in sorted(earlier, key=lambda found: found.stat().st_mtime_ns, reverse=True)[count:]:
        with suppress(OSError):
            each.unlink()


def is_earlier(path: Path, name: str | None = None) -> bool:
    """Whether this is an earlier archive of a model (of `name`), by its file name and what it says itself."""
    try:
        made = read_provenance(path)
    except BadArchive:
        return False
    return path.stem == f"{made.name}-{made.version}" and name in (None, made.name)
