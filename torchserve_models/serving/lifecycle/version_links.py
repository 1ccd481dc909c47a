"""Keep the archive of each served version, so that a restart can reload it after a newer archive has replaced it.

Packing a newer version replaces NAME.mar in the store. A hard link in `STORE/.versions/RUN/` keeps the old archive
without using more space, while the version is registered and the supervisor runs. If the system does not allow links
to archives of another owner, the archive is copied.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from torchserve_models.client.readiness_report import Key
from torchserve_models.files import PathLock
from torchserve_models.serving.archives.file_links import link_or_copy
from torchserve_models.serving.archives.manifests import archive_version
from torchserve_models.serving.lifecycle.snapshot import ServedVersion

FOLDER = ".versions"


def link_name(key: Key) -> str:
    """Return the file name of a version's link: NAME@VERSION.mar, percent-encoded."""
    name, version = key
    file = f"{quote(name, safe='')}@{quote(version, safe='')}.mar"
    return re.sub(r"\.(?=\.)", "%2E", file)  # TorchServe loads no path with ..


class VersionLinks:
    """Archive links of one run. If links cannot be created, `info` is called once with the reason."""

    def __init__(self, store: Path, info: Callable[[str], None]) -> None:
        self._store = store
        self._info = info
        self._folder: Path | None = None
        self._lock: PathLock | None = None
        self._is_unusable = False
        self._linked: set[Key] = set()

    def sync(self, versions: Iterable[ServedVersion]) -> None:
        """Link the archives of these versions, and remove the links of all others. Never raises OSError."""
        by_key = {version.key: version for version in versions}
        for key in by_key.keys() - self._linked:
            self._linked.add(key)
            self._link(by_key[key])
        for key in self._linked - by_key.keys():
            self._linked.discard(key)
            if self._folder is not None:
                with suppress(OSError):
                    (self._folder / link_name(key)).unlink()

    def find(self, version: ServedVersion) -> Path | None:
        """Return the path of this version's archive in the store or among the links; None if both lack it."""
        candidates = [self._store / version.archive]
        if self._folder is not None:
            candidates.append(self._folder / link_name(version.key))
        return next((path for path in candidates if archive_version(path) == version.version), None)

    def close(self) -> None:
        """Remove all links of this run."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            with suppress(OSError):
                self._folder.parent.rmdir()  # unless others use it
        if self._lock is not None:
            self._lock.close()
        self._folder = self._lock = None

    def _link(self, version: ServedVersion) -> None:
        archive = self._store / version.archive
        if archive_version(archive) != version.version or not self._open():
            return
        assert self._folder is not None
        link = self._folder / link_name(version.key)
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
                "archive is replaced, a restart of the front end cannot reload this version"
            )

    def _open(self) -> bool:
        if self._folder is None and not self._is_unusable:
            try:
                parent = self._store / FOLDER
                parent.mkdir(exist_ok=True)
                _remove_abandoned(parent)
                folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
                self._lock = PathLock(folder / "lock", create=True, blocking=False)
                self._folder = folder
            except OSError as error:
                self._is_unusable = True
                self._info(
                    f"{self._store} cannot hold links to served archives ({error.strerror}). A restart of the front "
                    "end cannot reload versions whose archives have been replaced"
                )
        return self._folder is not None


def _remove_abandoned(parent: Path) -> None:
    """Remove folders of killed supervisors, whose lock is free."""
    for folder in parent.glob("run-*"):
        try:
            with PathLock(folder / "lock", blocking=False):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
