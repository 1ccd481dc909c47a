"""nginx's folder: its configuration, its temporary files, and what scripts/gateway counts for the metrics."""

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path


class WorkFolder:
    """A temporary folder whose parts are put back when something cleans them away.

    It is not in the run folder, which nginx's workers may not enter: started by root, they run as another user.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="nginx-"))
        self.path.chmod(0o755)
        self.config = self.path / "nginx.conf"
        self.config.touch(0o600)  # it holds the key of the inner routes
        self.state = self.path / "state.json"
        self._folders: dict[Path, os.stat_result] = {}
        self._config_text = b""

    def remember(self) -> None:
        """Remember the parts that nginx has created at its start, with their owners."""
        self._config_text = self.config.read_bytes()
        self._folders = {
            path: path.stat() for path in [self.path, *sorted(self.path.rglob("*"))] if path.is_dir()
        }

    def restore(self) -> bool:
        """Create what is missing. Return whether something was. Raises OSError."""
        restored = False
        for path, found in self._folders.items():
            if not path.is_dir():
                path.mkdir(mode=stat.S_IMODE(found.st_mode))
                path.chmod(stat.S_IMODE(found.st_mode))
                with contextlib.suppress(PermissionError):  # not root: it is ours anyway
                    os.chown(path, found.st_uid, found.st_gid)
                restored = True
        if self._folders and not self.config.exists():
            self.config.touch(0o600)
            self.config.write_bytes(self._config_text)
            restored = True
        return restored

    def write_state(self, restarts: Mapping[str, Mapping[str, int]]) -> None:
        """Write the restarts for gateway/metrics.py, by process and reason. Raises OSError."""
        new = self.state.with_suffix(".new")
        new.write_text(json.dumps({"restarts": restarts}), encoding="utf-8")
        new.replace(self.state)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
