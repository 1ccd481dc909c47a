"""Atomic file replacement, and locks on files and folders."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from filelock import lock_descriptor


@contextmanager
def open_atomic(path: Path, *, sync: bool = False, mode: int | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends; after an error, `path` is unchanged.

    The temporary file is `.NAME.*.tmp` in the same folder. It is left behind only if the process is killed.

    Args:
        path: The file to create or replace.
        sync: Whether the content and the new name are on disk before this returns.
        mode: Permissions of the file; by default those of a new file.

    Raises:
        OSError: The file cannot be written or replaced.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()
    if sync:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomic(path: Path, content: str | bytes, *, sync: bool = False, mode: int | None = None) -> None:
    """Replace a file with the content, which is encoded as UTF-8 if it is text. See `open_atomic`."""
    with open_atomic(path, sync=sync, mode=mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


class PathLock:
    """An exclusive lock (flock) on a file or folder, held until `close` or the end of the process.

    Locking a folder needs no lock file in it, so it works for every user who may write to the folder.

    Args:
        path: The file or folder.
        create: Whether to create the file if it does not exist.
        blocking: Whether to wait for another process to release the lock.
        follow_symlinks: Whether `path` may be a symbolic link.

    Raises:
        BlockingIOError: The lock is held elsewhere and `blocking` is false.
        OSError: The path cannot be opened or locked.
    """

    def __init__(
        self, path: Path, *, create: bool = False, blocking: bool = True, follow_symlinks: bool = True
    ) -> None:
        flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        descriptor = os.open(path, flags | (0 if follow_symlinks else os.O_NOFOLLOW), 0o666)
        try:
            if not lock_descriptor(descriptor, blocking=blocking):
                raise BlockingIOError(errno.EWOULDBLOCK, "Locked by another process", str(path))
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Release the lock. Does nothing if it is already released."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
