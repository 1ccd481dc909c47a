"""Resumable downloads into the hub cache, verified against the digests that the hub lists.

huggingface_hub restarts interrupted downloads in the next process. Here the received bytes stay in the blob's
`.incomplete` file, and the next run requests only the remaining bytes.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import lock_descriptor
from huggingface_hub import try_to_load_from_cache

from torchserve_models.packing.errors import ChecksumMismatch, DiskFull, HubOffline, explain_os_errors
from torchserve_models.packing.sources import hub, resumable_download
from torchserve_models.packing.sources.hub import HubFile
from torchserve_models.packing.sources.model_files import ModelFile, git_blob_id, sha256_of

_SHA256_DIGITS = 64
_MIN_REPORTED_BYTES = 10_000_000  # without a terminal there is no progress bar, only this message


def find_cached(hub_id: str, revision: str, name: str) -> Path | None:
    """Return the path of the file in the hub cache, or None. The content is not checked."""
    cached_path = try_to_load_from_cache(hub_id, name, revision=revision)
    return Path(cached_path) if isinstance(cached_path, str) else None


def fetch(
    hub_id: str, revision: str, name: str, expected: HubFile, report: Callable[[str], None]
) -> ModelFile:
    """Return the file with exactly the expected content, from the cache or the hub.

    A damaged file in the cache is reported and downloaded again.

    Raises:
        ChecksumMismatch: The hub serves a file that does not match the expected digest.
        HubError: The file cannot be downloaded.
    """
    path = find_cached(hub_id, revision, name)
    if path is not None and not _matches(path, expected):
        if hub.is_offline():
            raise ChecksumMismatch(
                f"Checksum mismatch for {name} of {hub_id} in the cache ({path}), and HF_HUB_OFFLINE is set. Unset "
                "HF_HUB_OFFLINE to download the file again, or restore the cache."
            )
        report(f"{name} of {hub_id} is damaged in the cache; downloading the file again.")
        path = None
    if path is None:
        if expected.size is not None and expected.size >= _MIN_REPORTED_BYTES:
            report(f"Downloading {name} of {hub_id} ({expected.size / 1e6:,.0f} MB)")
        path = _download(hub_id, revision, name, expected)
    sha256 = expected.oid if len(expected.oid) == _SHA256_DIGITS else sha256_of(path)
    return ModelFile(name, path, path.stat().st_size, sha256)


def _download(hub_id: str, revision: str, name: str, expected: HubFile) -> Path:
    if hub.is_offline():
        raise HubOffline(
            f"HF_HUB_OFFLINE is set, and the cache does not contain {name} of {hub_id} at {revision[:12]}. "
            "Unset HF_HUB_OFFLINE to download the file."
        )
    folder = hub.cache_folder(hub_id)
    blob = folder / "blobs" / expected.oid
    pointer = folder / "snapshots" / revision / name
    with explain_os_errors(f"downloading {name} of {hub_id}"):
        blob.parent.mkdir(parents=True, exist_ok=True)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if not (blob.is_file() and _matches(blob, expected)):
            _complete_blob(hub_id, revision, name, expected, blob)
        _link_blob(pointer, blob)
    return pointer


def _complete_blob(hub_id: str, revision: str, name: str, expected: HubFile, blob: Path) -> None:
    """Download the missing part of the blob and verify its digest."""
    partial = blob.with_name(f"{blob.name}.incomplete")
    with partial.open("ab") as file:
        # If two packs run concurrently, the second one waits and then uses the blob of the first.
        lock_descriptor(file.fileno(), blocking=True)
        if blob.is_file() and _matches(blob, expected):
            return
        for start in (partial.stat().st_size, 0):
            if expected.size is not None and start > expected.size:
                continue
            file.truncate(start)
            _check_space(partial, expected.size, start)
            with hub.hub_errors(hub_id):
                resumable_download.receive(hub.file_url(hub_id, revision, name), name, expected.size, partial)
            os.fsync(file.fileno())
            if _matches(partial, expected):
                partial.replace(blob)
                return
            if start == 0:
                break
        file.truncate(0)  # not removed: another pack may be waiting for the lock on it
    raise ChecksumMismatch(
        f"Checksum mismatch for {name} of {hub_id} at {hub.endpoint()}. Nothing was packed. Try again. If it fails "
        "again, the file no longer matches models/lock.json or was altered in transit; ask the repository owner "
        "before you use --update."
    )


def _check_space(partial: Path, size: int | None, start: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if size is not None and size - start > free:
        raise DiskFull(
            f"The download needs {(size - start) / 1e6:,.0f} MB, but {partial.parent} has only {free / 1e6:,.0f} MB. "
            "Free some space, or set HF_HOME to a folder on another disk."
        )


def _matches(path: Path, expected: HubFile) -> bool:
    """Return whether the file has the size and digest that the hub lists."""
    if expected.size is not None and path.stat().st_size != expected.size:
        return False
    return (sha256_of(path) if len(expected.oid) == _SHA256_DIGITS else git_blob_id(path)) == expected.oid


def _link_blob(pointer: Path, blob: Path) -> None:
    """Create `pointer` as a relative link to the blob, or as a copy if links are not possible.

    An existing file is replaced atomically, because another process may be reading it.
    """
    temporary = pointer.with_name(f".{pointer.name}.{secrets.token_hex(4)}")
    try:
        try:
            temporary.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:
            shutil.copyfile(blob, temporary)
        temporary.replace(pointer)
    finally:
        temporary.unlink(missing_ok=True)
