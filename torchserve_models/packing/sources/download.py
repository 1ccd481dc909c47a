"""One file from the hub into the hub's cache: resumed, checked against its digest, never half there.

The library starts an interrupted download over in the next process; a gigabyte is worth keeping, so what has arrived
stays under the blob's name with `.incomplete`, and the next run asks for the rest.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from torchserve_models.packing.errors import HubOffline, NoSpace, WrongContent, explained
from torchserve_models.packing.sources import hub, transfer
from torchserve_models.packing.sources.hub import HubFile
from torchserve_models.packing.sources.model_files import ModelFile, git_blob_id, sha256_of

_SHA256_DIGITS = 64
_WORTH_SAYING = 10_000_000  # bytes; where there is no terminal, and so no bar, this line is all there is


def cached(hub_id: str, revision: str, name: str) -> Path | None:
    """Where the cache holds the file, whoever downloaded it; its content is not looked at."""
    found = try_to_load_from_cache(hub_id, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def fetch(hub_id: str, revision: str, name: str, wanted: HubFile, report: Callable[[str], None]) -> ModelFile:
    """The file with exactly the wanted content, from the cache or else from the hub.

    A cached file that is damaged is reported and downloaded again. Raises WrongContent when the hub itself serves
    something else than its own digest, or than the locked one.
    """
    path = cached(hub_id, revision, name)
    if path is not None and not _is(path, wanted):
        if hub.is_offline():
            raise WrongContent(
                f"{path} is not the {name} of {hub_id} that its digest names, and HF_HUB_OFFLINE is set. Go online "
                "to fetch it again, or restore the cache."
            )
        report(f"{name} of {hub_id} in the cache is damaged; downloading it again.")
        path = None
    if path is None:
        if wanted.size is not None and wanted.size >= _WORTH_SAYING:
            report(f"Downloading {name} of {hub_id} ({wanted.size / 1e6:,.0f} MB)")
        path = _download(hub_id, revision, name, wanted)
    sha256 = wanted.oid if len(wanted.oid) == _SHA256_DIGITS else sha256_of(path)
    return ModelFile(name, path, path.stat().st_size, sha256)


def _download(hub_id: str, revision: str, name: str, wanted: HubFile) -> Path:
    if hub.is_offline():
        raise HubOffline(
            f"HF_HUB_OFFLINE is set, and the cache does not hold {name} of {hub_id} at {revision[:12]}. Unset it "
            "to download them."
        )
    folder = hub.cache_folder(hub_id)
    blob = folder / "blobs" / wanted.oid
    pointer = folder / "snapshots" / revision / name
    with explained(f"downloading {name} of {hub_id}"):
        blob.parent.mkdir(parents=True, exist_ok=True)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if not (blob.is_file() and _is(blob, wanted)):
            _complete(hub_id, revision, name, wanted, blob)
        _link(pointer, blob)
    return pointer


def _complete(hub_id: str, revision: str, name: str, wanted: HubFile, blob: Path) -> None:
    """Makes `blob` whole, going on from what an earlier run left."""
    partial = blob.with_name(f"{blob.name}.incomplete")
    with partial.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two packs at once: the second one waits and then finds the blob
        if blob.is_file() and _is(blob, wanted):
            return
        for start in (partial.stat().st_size, 0):
            if wanted.size is not None and start > wanted.size:
                continue
            file.truncate(start)
            _check_space(partial, wanted.size, start)
            with hub.hub_errors(hub_id):
                transfer.receive(hub.file_url(hub_id, revision, name), name, wanted.size, partial)
            os.fsync(file.fileno())
            if _is(partial, wanted):
                partial.replace(blob)
                return
            if start == 0:
                break
        file.truncate(0)  # not removed: another pack may be waiting for the lock on it
    raise WrongContent(
        f"{hub.endpoint()} serves a {name} of {hub_id} that does not have the digest it should have. Nothing was "
        "packed. If this stays so, the file was changed behind the lock or on the way: ask the owner before "
        "using --update."
    )


def _check_space(partial: Path, size: int | None, start: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if size is not None and size - start > free:
        raise NoSpace(
            f"The download needs {(size - start) / 1e6:,.0f} MB and {partial.parent} has {free / 1e6:,.0f} MB. Free "
            "some space, or point HF_HOME at a disk that has it."
        )


def _is(path: Path, wanted: HubFile) -> bool:
    """Whether the content is the one that the hub's digest names."""
    if wanted.size is not None and path.stat().st_size != wanted.size:
        return False
    return (sha256_of(path) if len(wanted.oid) == _SHA256_DIGITS else git_blob_id(path)) == wanted.oid


def _link(pointer: Path, blob: Path) -> None:
    """The cache's own form: a name in a snapshot is a relative link to a blob; a copy where links are impossible.

    In one step, as another pack may be reading the name.
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
