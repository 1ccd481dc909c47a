"""Rotate log files that other programs append to."""

import shutil
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 10 * 2**20


def rotate(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Above `max_bytes`, copy the file to NAME.1 and empty it; its writer has to append (O_APPEND).

    What is written between the two is lost. Where the copy fails, as on a full disk, the file is emptied anyway.
    """
    with suppress(OSError):
        if path.stat().st_size <= max_bytes:
            return
        with suppress(OSError):
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        with open(path, "r+b") as file:
            file.truncate(0)
