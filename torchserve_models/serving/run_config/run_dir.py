"""The run folder of one server: its configuration, logs, state, temporary files, and the lock that makes it one."""

import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from torchserve_models.serving.errors import AlreadyRunning, RunError
from torchserve_models.serving.run_config.state import State

# A Unix socket's path has at most 107 bytes; the front end puts the workers' there, as .ts.sock.<number>.
_MAX_FOLDER_BYTES = 107 - len("/.ts.sock.65535")


@dataclass(frozen=True)
class RunDir:
    """Names of what lies in the folder."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.properties"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def server_log(self) -> Path:
        """The front end's own log."""
        return self.logs / "server.log"

    @property
    def workers_log(self) -> Path:
        """What the workers print."""
        return self.logs / "workers.log"

    @property
    def output(self) -> Path:
        """What Java prints before and beside its log."""
        return self.logs / "java.out"

    @property
    def supervisor_log(self) -> Path:
        return self.logs / "supervisor.log"

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def snapshot(self) -> Path:
        """What is served, for the restart of a front end that has died."""
        return self.path / "snapshot.json"

    @property
    def activity(self) -> Path:
        """What each worker is doing (handlers/core/activity.py)."""
        return self.path / "activity"

    @property
    def edge(self) -> Path:
        """What happens in front of the server: clients that left, and `draining` while it shuts down."""
        return self.path / "edge"

    @property
    def draining(self) -> Path:
        """Holds the Unix time from which on new requests are refused; there is none before."""
        return self.edge / "draining"

    @property
    def queues_emptied(self) -> Path:
        """Holds the Unix time from which on every queued request came after `draining`; there is none before."""
        return self.edge / "queues-emptied"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    def make(self) -> None:
        """For its owner alone, unless it is there already."""
        try:
            self.path.mkdir(0o700, parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            self.activity.mkdir(exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def lock(self) -> IO[str]:
        """Held by the supervisor as long as it lives, however it ends. Raises AlreadyRunning when it is taken."""
        try:
            handle = open(self.path / "lock", "a")  # noqa: SIM115
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.close()
            state = State.read(self.state)
            holder = f"process {state.supervisor.pid}, {state.phase}" if state else "it is just starting"
            raise AlreadyRunning(
                f"a server is already running in {self.path} ({holder}). See it with scripts/status, end it with "
                "scripts/stop, or start another one with --run-dir FOLDER --port-offset 100"
            ) from error
        return handle

    def temporary(self) -> Path:
        """A new, empty folder for temporary files: here, or in the system's place where this path is too long."""
        folder = self.path / "tmp"
        if len(os.fsencode(folder)) <= _MAX_FOLDER_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
            try:
                folder.mkdir()
            except OSError as error:
                raise self._unusable(error) from error
            return folder
        return Path(tempfile.mkdtemp(prefix="torchserve-"))

    def make_worker_folders(self) -> None:
        """Folders for what workers tell and are told, without what earlier workers left; before each start."""
        shutil.rmtree(self.activity, ignore_errors=True)
        try:
            for folder in (self.activity, self.edge):
                folder.mkdir(parents=True, exist_ok=True)
            self.draining.unlink(missing_ok=True)
            self.queues_emptied.unlink(missing_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> RunError:
        return RunError(
            f"the run folder {self.path} cannot be used: {error.strerror} ({error.filename}); choose --run-dir"
        )
