"""Rotate log files that other programs append to."""

import shutil
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 10 * 2**20


def rotate(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Copy a file larger than `max_bytes` to NAME.1 and empty it. The writing program must append (O_APPEND).

    Lines written between the two steps are lost. If the copy fails, for example on a full disk, the file is still
    emptied.
    """
    with suppress(OSError):
        if path.stat().st_size <= max_bytes:
            return
        with suppress(OSError):
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        with open(path, "r+b") as file:
            file.truncate(0)
