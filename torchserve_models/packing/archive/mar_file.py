"""The archive file: a zip whose bytes depend on its members alone, replaced as a whole or not at all.

Members are stored, not deflated: weights do not shrink, TorchServe unpacks stored ones faster, and the bytes that a
deflater makes depend on the zlib of the machine.
"""

import fcntl
import hashlib
import io
import os
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from torchserve_models.packing.errors import BadArchive, NoSpace, PackingError, WrongContent, explained

_CHUNK = 1 << 20
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time a zip can hold
_MODE = stat.S_IFREG | 0o644
_UNIX = 3
_FORMAT = 20  # zip 2.0, what the zipfile module writes for a stored member below 2 GiB


@dataclass(frozen=True)
class Member:
    """A file of the archive: where it goes, where its bytes are, and what they are."""

    name: str
    content: bytes | Path
    size: int
    sha256: str

    @classmethod
    def of_bytes(cls, name: str, content: bytes) -> "Member":
        return cls(name, content, len(content), hashlib.sha256(content).hexdigest())


def holds(path: Path, members: Sequence[Member]) -> bool:
    """Whether `path` is already the archive that `write` would make of the members, to the byte."""
    try:
        with path.open("rb") as file:
            comparison = _Comparison(file)
            with zipfile.ZipFile(comparison, "w", zipfile.ZIP_STORED) as archive:
                for member in _in_order(members):
                    _add(archive, member)
                    if comparison.differs:
                        break
            return not comparison.differs and not file.read(1)
    except OSError:
        return False


class _Comparison(io.RawIOBase):
    """Takes what is written to it and keeps only whether `file` has the same bytes in the same places."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._differing: set[int] = (
            set()
        )  # by place, as a member's header is written again once its CRC is known

    @property
    def differs(self) -> bool:
        """Between two members, or at the end."""
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
        place = self._file.tell()
        if self._file.read(len(data)) == data:
            self._differing.discard(place)
        else:
            self._differing.add(place)
            self._file.seek(place + len(data))  # reading stops at the file's end
        return len(data)


def write(path: Path, members: Sequence[Member]) -> None:
    """Makes the archive under a temporary name beside `path`, then puts it in its place in one step.

    Raises NoSpace, WrongContent when a file changed since its digest was taken, or PackingError; in each case, and
    when interrupted, `path` is what it was and nothing else is left.
    """
    for member in members:
        _check_name(member.name)
    store = path.parent
    with explained(f"making the model store {store}"):
        store.mkdir(parents=True, exist_ok=True)
        if not os.access(store, os.W_OK | os.X_OK):
            raise PackingError(f"The model store {store} is not writable; choose another one with --store.")
    with explained(f"writing {path}"), _locked(store) as folder:
        _remove_leftovers(path)
        _check_space(store, members)
        temporary = store / f".{path.name}.{secrets.token_hex(4)}.tmp"
        try:
            with temporary.open("xb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    for member in _in_order(members):
                        _add(archive, member)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        os.fsync(folder)


def _in_order(members: Sequence[Member]) -> list[Member]:
    return sorted(members, key=lambda member: member.name)


def _info(member: Member) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(member.name, _EARLIEST)
    info.create_system = _UNIX
    info.create_version = info.extract_version = _FORMAT
    info.external_attr = _MODE << 16
    info.compress_type = zipfile.ZIP_STORED
    info.file_size = member.size  # tells zipfile beforehand whether the long form of the header is needed
    return info


def _add(archive: zipfile.ZipFile, member: Member) -> None:
    with archive.open(_info(member), "w") as target:
        if isinstance(member.content, bytes):
            target.write(member.content)
            return
        digest = hashlib.sha256()
        with member.content.open("rb") as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
    if digest.hexdigest() != member.sha256:
        raise WrongContent(f"{member.content} changed while it was being packed; run the same command again.")


def _check_name(name: str) -> None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or not parts:
        raise BadArchive(f"{name!r} would leave the folder that the archive is unpacked in.")


def _check_space(store: Path, members: Sequence[Member]) -> None:
    needed, free = sum(member.size for member in members), shutil.disk_usage(store).free
    if needed > free:
        raise NoSpace(
            f"The archive needs {needed / 1e6:,.0f} MB and {store} has {free / 1e6:,.0f} MB. Free some space, or "
            "choose another place with --store."
        )


@contextmanager
def _locked(store: Path) -> Iterator[int]:
    """The folder's descriptor. Packs write one after another, so that none takes another's file for a leftover."""
    folder = os.open(store, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(folder)


def _remove_leftovers(path: Path) -> None:
    """Removes what a pack that was killed outright left; call it with the store locked."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
