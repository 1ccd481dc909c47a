"""Run folder of one server: configuration, logs, state, temporary files and lock."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torchserve_models.files import PathLock
from torchserve_models.serving.errors import AlreadyRunning, RunError
from torchserve_models.serving.run_config.state import RunState

# The path of a Unix socket has at most 107 bytes; the workers' sockets are .ts.sock.<number> in the folder.
_MAX_FOLDER_BYTES = 107 - len("/.ts.sock.65535")


@dataclass(frozen=True)
class RunDir:
    """Run folder, with the paths of its files."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.properties"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def server_log(self) -> Path:
        """Log of the front end."""
        return self.logs / "server.log"

    @property
    def workers_log(self) -> Path:
        """Output of the workers."""
        return self.logs / "workers.log"

    @property
    def output(self) -> Path:
        """Standard output and standard error of Java."""
        return self.logs / "java.out"

    @property
    def supervisor_log(self) -> Path:
        return self.logs / "supervisor.log"

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def snapshot(self) -> Path:
        """Recorded state (lifecycle/recorded_state.py): the served models, for the next start."""
        return self.path / "snapshot.json"

    @property
    def plan(self) -> Path:
        """Plan of a detached supervisor."""
        return self.path / "plan.json"

    @property
    def activity(self) -> Path:
        """Activity files of the workers (handlers/core/activity.py)."""
        return self.path / "activity"

    @property
    def edge(self) -> Path:
        """Files for the workers about disconnected clients, and about draining during shutdown."""
        return self.path / "edge"

    @property
    def draining(self) -> Path:
        """File with the Unix time from which new requests are rejected; does not exist before the shutdown."""
        return self.edge / "draining"

    @property
    def queues_emptied(self) -> Path:
        """File with the Unix time from which all queued requests are newer than `draining`."""
        return self.edge / "queues-emptied"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    def make(self) -> None:
        """Create the folder, accessible to its owner only, unless it exists."""
        try:
            self.path.mkdir(0o700, parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            self.activity.mkdir(exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def lock(self) -> PathLock:
        """Lock the run folder for the life of the process. Raises AlreadyRunning if it is locked."""
        try:
            return PathLock(self.path / "lock", create=True, blocking=False)
        except BlockingIOError as error:
            state = RunState.read(self.state)
            holder = f"process {state.supervisor.pid}, {state.phase}" if state else "starting"
            raise AlreadyRunning(
                f"a server is already running in {self.path} ({holder}). Show it with scripts/status, stop it with "
                "scripts/stop, or start another server with --run-dir FOLDER --port-offset 100"
            ) from error
        except OSError as error:
            raise self._unusable(error) from error

    def temporary(self) -> Path:
        """Create an empty temporary folder in the run folder, or in /tmp if the path is too long for sockets."""
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
        """Create empty folders for communication with the workers. Call this before each start of the front end."""
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
            f"the run folder {self.path} cannot be used: {error.strerror} ({error.filename}); choose another folder "
            "with --run-dir"
        )
