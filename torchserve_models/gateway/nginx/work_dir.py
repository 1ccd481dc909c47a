"""nginx's working directory: its configuration, and request bodies that do not fit into its buffers."""

import os
import shutil
import tempfile
from pathlib import Path

from torchserve_models.files import PathLock

PREFIX = "torchserve-nginx-"
_TEMPORARY = ("body", "proxy", "fastcgi", "uwsgi", "scgi", "refusals")


class WorkDir:
    """A directory in TMPDIR, or else in /var/tmp, which is on disk.

    It cannot be in the run directory, because nginx's worker processes run as another user if root starts nginx. A
    lock protects it from systemd-tmpfiles; `restore` recreates what other cleaners of temporary files remove.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or _parent()
        _remove_abandoned(parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self.path.chmod(0o755)
        self._owner: tuple[int, int] | None = None
        self._lock = PathLock(self.path)

    def restore(self) -> None:
        """Recreate removed directories, without which nginx responds 500 to larger bodies."""
        body = self.path / _TEMPORARY[0]
        try:
            status = body.stat()
            self._owner = status.st_uid, status.st_gid
        except FileNotFoundError:
            pass
        if self._owner is None:  # nginx has not created its directories yet
            return
        for name in _TEMPORARY:
            folder = self.path / name
            if not folder.is_dir():
                self.path.mkdir(mode=0o755, exist_ok=True)
                folder.mkdir(mode=0o700, exist_ok=True)
                os.chown(folder, *self._owner)

    def remove(self) -> None:
        """Remove the directory. May be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _parent() -> Path:
    disk = Path("/var/tmp")
    if "TMPDIR" not in os.environ and disk.is_dir() and os.access(disk, os.W_OK | os.X_OK):
        return disk
    return Path(tempfile.gettempdir())


def _remove_abandoned(parent: Path) -> None:
    """Remove directories of killed processes, that is, directories that are not locked."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            with PathLock(folder, blocking=False, follow_symlinks=False):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use, or removed by another process
            continue
