"""nginx's own folder: its configuration, and the bodies that do not fit into its buffers."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "torchserve-nginx-"
_TEMPORARY = ("body", "proxy", "fastcgi", "uwsgi", "scgi", "refusals")


class WorkFolder:
    """A folder under /var/tmp, which is on disk, or where TMPDIR says.

    It cannot be in the run folder: nginx's worker processes run as another user where root starts it. Cleaners of
    temporary folders are held off by a lock, which systemd-tmpfiles respects; `restore` undoes what others remove.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or _parent()
        _remove_abandoned(parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self.path.chmod(0o755)
        self._owner: tuple[int, int] | None = None
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def restore(self) -> None:
        """Create folders again that something removed; without them nginx answers 500 to larger bodies."""
        body = self.path / _TEMPORARY[0]
        try:
            status = body.stat()
            self._owner = status.st_uid, status.st_gid
        except FileNotFoundError:
            pass
        if self._owner is None:  # nginx has not created them yet
            return
        for name in _TEMPORARY:
            folder = self.path / name
            if not folder.is_dir():
                self.path.mkdir(mode=0o755, exist_ok=True)
                folder.mkdir(mode=0o700, exist_ok=True)
                os.chown(folder, *self._owner)

    def remove(self) -> None:
        """May be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _parent() -> Path:
    disk = Path("/var/tmp")
    if "TMPDIR" not in os.environ and disk.is_dir() and os.access(disk, os.W_OK | os.X_OK):
        return disk
    return Path(tempfile.gettempdir())


def _remove_abandoned(parent: Path) -> None:
    """Remove our folders whose process was killed: nothing holds their lock."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use
            pass
        finally:
            os.close(lock)
