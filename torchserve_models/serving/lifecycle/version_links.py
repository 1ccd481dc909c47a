"""Keep the archive of each served version, so that a restart can reload it after a newer archive has replaced it.

Packing a newer version replaces NAME.mar in the store. A hard link in `STORE/.versions/run-*/` keeps the old archive
without using more space while the version is registered. After the end of the run, only links of versions that the
store no longer has are kept, until the next run or until the run folder is removed. If the system does not allow
links to archives of another owner, the archive is copied.

The file `lock` in the folder of links contains the path of the run folder, and is locked while the supervisor runs.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from torchserve_models.client.readiness_report import Key
from torchserve_models.files import PathLock
from torchserve_models.serving.archives.file_links import link_or_copy
from torchserve_models.serving.archives.manifests import archive_version
from torchserve_models.serving.lifecycle.recorded_state import InvalidState, RecordedState
from torchserve_models.serving.lifecycle.snapshot import ServedVersion
from torchserve_models.serving.run_config.run_dir import RunDir

FOLDER = ".versions"
_LOCK = "lock"


def link_name(key: Key) -> str:
    """Return the file name of a version's link: NAME@VERSION.mar, percent-encoded."""
    name, version = key
    file = f"{quote(name, safe='')}@{quote(version, safe='')}.mar"
    return re.sub(r"\.(?=\.)", "%2E", file)  # TorchServe loads no path with ..


class VersionLinks:
    """Archive links of one run. If links cannot be created, `info` is called once with the reason."""

    def __init__(self, store: Path, run: RunDir, info: Callable[[str], None]) -> None:
        self._store = store
        self._run = run
        self._info = info
        self._folder: Path | None = None
        self._lock: PathLock | None = None
        self._is_unusable = False
        self._synced: dict[Key, ServedVersion] | None = None

    def sync(self, versions: Iterable[ServedVersion]) -> None:
        """Link the archives of these versions, and remove all other links. Never raises OSError."""
        by_key = {version.key: version for version in versions}
        previous, self._synced = self._synced, by_key
        if previous is not None and previous.keys() == by_key.keys():
            return
        for key in by_key.keys() - (previous or {}).keys():
            self._link(by_key[key])
        self._remove_links(keep={link_name(key) for key in by_key})

    def find(self, version: ServedVersion) -> Path | None:
        """Return the path of this version's archive in the store or among the links; None if both lack it."""
        candidates = [] if version.archive.startswith(".") else [self._store / version.archive]
        if self._open():
            assert self._folder is not None
            candidates.append(self._folder / link_name(version.key))
        return next((path for path in candidates if archive_version(path) == version.version), None)

    def close(self) -> None:
        """Remove the links of versions that the store has, and unlock the others for the next run."""
        if self._folder is not None and self._synced is not None:
            needed = {
                link_name(version.key)
                for version in self._synced.values()
                if archive_version(self._store / version.archive) != version.version
            }
            self._remove_links(keep=needed)
            if [path.name for path in _entries(self._folder)] == [_LOCK]:
                _remove_folder(self._folder)
        if self._lock is not None:
            self._lock.close()
        self._folder = self._lock = None

    def _link(self, version: ServedVersion) -> None:
        if not self._open(create=True):
            return
        assert self._folder is not None
        archive = self._store / version.archive
        link = self._folder / link_name(version.key)
        if archive_version(archive) != version.version or archive_version(link) == version.version:
            return
        new = link.with_suffix(".new")
        try:
            new.unlink(missing_ok=True)
            link_or_copy(archive, new)
            if archive_version(new) == version.version:  # the archive was not replaced meanwhile
                new.replace(link)
            else:
                new.unlink()
        except OSError as error:  # only this archive; others may have another owner
            self._info(
                f"{version.name} {version.version}: {archive} cannot be linked or copied ({error.strerror}). If the "
                "archive is replaced, a restart cannot reload this version"
            )

    def _remove_links(self, keep: Collection[str]) -> None:
        if self._folder is None:
            return
        for path in _entries(self._folder):
            if path.name != _LOCK and path.name not in keep:
                with suppress(OSError):
                    path.unlink()

    def _open(self, create: bool = False) -> bool:
        """Lock the folder of this run's links; return whether there is one. Remove folders that no run needs."""
        if self._folder is not None or self._is_unusable:
            return self._folder is not None
        parent = self._store / FOLDER
        for folder, lock, owner in _unlocked_folders(parent):
            if owner == str(self._run.path) and self._folder is None:
                self._folder, self._lock = folder, lock
                continue
            if not _is_needed(owner, self._store):
                _remove_folder(folder)
            lock.close()
        if self._folder is None and create:
            try:
                parent.mkdir(exist_ok=True)
                folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
                self._lock = PathLock(folder / _LOCK, create=True, blocking=False)
                (folder / _LOCK).write_text(str(self._run.path), encoding="utf-8")
                self._folder = folder
            except OSError as error:
                self._is_unusable = True
                self._info(
                    f"{self._store} cannot hold links to served archives ({error.strerror}). A restart cannot reload "
                    "versions whose archives have been replaced"
                )
        return self._folder is not None


def remove_links(store: Path, run: RunDir) -> None:
    """Remove the links of a run whose supervisor does not run."""
    for folder, lock, owner in _unlocked_folders(store / FOLDER):
        if owner == str(run.path):
            _remove_folder(folder)
        lock.close()


def _unlocked_folders(parent: Path) -> Iterator[tuple[Path, PathLock, str]]:
    """Yield each folder that no running supervisor uses, its lock, and the path of its run folder."""
    for folder in sorted(parent.glob("run-*")):
        try:
            lock = PathLock(folder / _LOCK, blocking=False)
        except OSError:
            continue
        try:
            owner = (folder / _LOCK).read_text(encoding="utf-8", errors="replace")
        except OSError:
            lock.close()
            continue
        yield folder, lock, owner


def _is_needed(owner: str, store: Path) -> bool:
    """Return whether the run folder `owner` still has a state that was recorded for this store."""
    try:
        recorded = RecordedState.read(RunDir(Path(owner)).snapshot) if owner else None
    except InvalidState:  # it may belong to another user
        return True
    return recorded is not None and recorded.store == str(store)


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()  # unless other runs have links


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
