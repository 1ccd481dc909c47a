"""The archive file: a zip whose bytes depend on its members alone, replaced as a whole or not at all.

Members are stored, not deflated: weights do not shrink, TorchServe unpacks stored ones faster, and the bytes that a
deflater makes depend on the zlib of the machine.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packing.errors import BadArchive, NoSpace, PackingError, WrongContent, explained

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
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
            if archive.comment or [info.filename for info in found] != sorted(
                member.name for member in members
            ):
                return False
            by_name = {member.name: member for member in members}
            return all(_same(archive, info, by_name[info.filename]) for info in found)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _same(archive: zipfile.ZipFile, info: zipfile.ZipInfo, member: Member) -> bool:
    expected = _info(member)
    if (info.date_time, info.external_attr, info.create_system, info.compress_type, info.file_size) != (
        expected.date_time,
        expected.external_attr,
        expected.create_system,
        expected.compress_type,
        member.size,
    ):
        return False
    with archive.open(info) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == member.sha256  # type: ignore[arg-type]


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
        _remove_leftovers(path)
    _check_space(store, members)
    temporary = store / f".{path.name}.{secrets.token_hex(4)}.tmp"
    with explained(f"writing {path}"):
        try:
            with temporary.open("xb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # says that this one is in use, until its writer ends
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    for member in sorted(members, key=lambda member: member.name):
                        _add(archive, member)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(store)


def sha256_and_size(path: Path) -> tuple[str, int]:
    with explained(f"reading {path}"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


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


def _remove_leftovers(path: Path) -> None:
    """Removes what a pack that was killed outright left; a file still locked is another pack's, at work."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        with leftover.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
