"""Write reproducible archives: zip files whose bytes depend only on their members.

Members are stored without compression: weights do not compress well, TorchServe unpacks stored members faster, and
compressed bytes depend on the zlib version.
"""

import hashlib
import io
import os
import shutil
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from torchserve_models.files import PathLock, open_atomic
from torchserve_models.packing.errors import (
    ChecksumMismatch,
    DiskFull,
    InvalidArchive,
    PackingError,
    explain_os_errors,
)

_CHUNK_BYTES = 1 << 20
_EARLIEST_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can represent
_FILE_MODE = stat.S_IFREG | 0o644
_UNIX_SYSTEM = 3
_ZIP_VERSION = 20  # zip 2.0, as the zipfile module writes for a stored member below 2 GiB


@dataclass(frozen=True)
class ArchiveMember:
    """A file of the archive.

    Attributes:
        name: Path in the archive.
        content: The bytes, or the path of a file that contains them.
        size: Size in bytes.
        sha256: Expected digest.
    """

    name: str
    content: bytes | Path
    size: int
    sha256: str

    @classmethod
    def of_bytes(cls, name: str, content: bytes) -> "ArchiveMember":
        """Create a member from bytes."""
        return cls(name, content, len(content), hashlib.sha256(content).hexdigest())


def has_same_content(path: Path, members: Sequence[ArchiveMember]) -> bool:
    """Return whether the file at `path` already equals the archive that `write` would create."""
    try:
        with path.open("rb") as file:
            comparison = _Comparison(file)
            with zipfile.ZipFile(comparison, "w", zipfile.ZIP_STORED) as archive:
                for member in _sort_by_name(members):
                    _add(archive, member)
                    if comparison.differs:
                        break
            return not comparison.differs and not file.read(1)
    except OSError:
        return False


class _Comparison(io.RawIOBase):
    """A file object that compares written data with `file` instead of storing it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._differing: set[int] = (
            set()
        )  # positions, because a member's header is written again once its CRC is known

    @property
    def differs(self) -> bool:
        """Return whether the contents differ; valid only between two members and at the end."""
        return bool(self._differing)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def write(self, data: Any, /) -> int:
        position = self._file.tell()
        if self._file.read(len(data)) == data:
            self._differing.discard(position)
        else:
            self._differing.add(position)
            self._file.seek(position + len(data))  # reading stops at the file's end
        return len(data)


def write(path: Path, members: Sequence[ArchiveMember]) -> None:
    """Write the archive atomically.

    After an error or an interruption, `path` is unchanged and no temporary file is left.

    Raises:
        DiskFull: The disk has too little space.
        ChecksumMismatch: A file has changed since its digest was computed.
        PackingError: The store cannot be written.
    """
    for member in members:
        _check_name(member.name)
    store = path.parent
    with explain_os_errors(f"making the model store {store}"):
        store.mkdir(parents=True, exist_ok=True)
        if not os.access(store, os.W_OK | os.X_OK):
            raise PackingError(
                f"The model store {store} is not writable; choose another folder with --store."
            )
    with explain_os_errors(f"writing {path}"), PathLock(store):
        _remove_leftovers(path)  # under the lock: another process's temporary file is not a leftover
        _check_space(store, members)
        with (
            open_atomic(path, sync=True) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
        ):
            for member in _sort_by_name(members):
                _add(archive, member)


def _sort_by_name(members: Sequence[ArchiveMember]) -> list[ArchiveMember]:
    return sorted(members, key=lambda member: member.name)


def _info(member: ArchiveMember) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(member.name, _EARLIEST_TIME)
    info.create_system = _UNIX_SYSTEM
    info.create_version = info.extract_version = _ZIP_VERSION
    info.external_attr = _FILE_MODE << 16
    info.compress_type = zipfile.ZIP_STORED
    info.file_size = member.size  # zipfile needs the size to choose the form of the header
    return info


def _add(archive: zipfile.ZipFile, member: ArchiveMember) -> None:
    with archive.open(_info(member), "w") as target:
        if isinstance(member.content, bytes):
            target.write(member.content)
            return
        digest = hashlib.sha256()
        with member.content.open("rb") as source:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                target.write(chunk)
    if digest.hexdigest() != member.sha256:
        raise ChecksumMismatch(
            f"{member.content} changed while it was being packed. Run the same command again."
        )


def _check_name(name: str) -> None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or not parts:
        raise InvalidArchive(
            f"{name!r} is not a valid member name: it must be a relative path inside the archive."
        )


def _check_space(store: Path, members: Sequence[ArchiveMember]) -> None:
    needed, free = sum(member.size for member in members), shutil.disk_usage(store).free
    if needed > free:
        raise DiskFull(
            f"The archive needs {needed / 1e6:,.0f} MB, but {store} has only {free / 1e6:,.0f} MB. Free some "
            "space, or choose another folder with --store."
        )


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of killed processes. The caller must hold the lock of the store."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
