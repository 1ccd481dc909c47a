"""State file of one server: processes, endpoints and phase."""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import psutil
from pydantic import Field, TypeAdapter, ValidationError

from torchserve_models.client import Endpoints
from torchserve_models.files import write_atomic
from torchserve_models.guardian import guardian_pid

Phase = Literal["starting", "ready", "not ready", "restarting", "stopping", "stopped", "failed"]


@dataclass(frozen=True)
class ProcessIdentity:
    """Process id and start time, which together identify a process, because process ids are reused."""

    pid: Annotated[int, Field(gt=0)]
    started: str

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity":
        return cls(pid, _process_start_time(pid))

    @classmethod
    def of_guardian(cls) -> "ProcessIdentity | None":
        """Return the guardian of this process; None if it has none."""
        pid = guardian_pid()
        try:
            return None if pid is None else cls.of(pid)
        except (OSError, psutil.Error):  # it has just ended
            return None

    def alive(self) -> bool:
        """Return whether the process runs; False for zombies."""
        try:
            same = _process_start_time(self.pid) == self.started
            return bool(same and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except (OSError, psutil.Error):
            return False


def _process_start_time(pid: int) -> str:
    """Return the start time of a process; on Linux as boot id and clock ticks, which clock changes do not affect."""
    if sys.platform != "linux":
        return str(psutil.Process(pid).create_time())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # The second field is the program's name in brackets, and may itself hold spaces and brackets; see proc(5).
    after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return f"{boot} {after_name[22 - 3]}"


@dataclass(frozen=True)
class RunState:
    """Content of the state file.

    Attributes:
        phase: Current phase of the server.
        message: Details of the phase for the user.
        supervisor: The supervisor's process.
        guardian: The process that starts the supervisor again if it is killed, or None.
        frontend: The Java process, or None before it is started.
        endpoints: Addresses of the server.
        models: Names of the served models.
        store: Folder of the archives.
        temporary: The front end's temporary folder, with the workers' sockets and unpacked models.
        stop_seconds: Maximum seconds from SIGTERM to the end of the supervisor.
        cores: Number of cores that the workers may use; 0 if unknown.
        updated: Unix time of the last write.
    """

    phase: Phase
    message: str
    supervisor: ProcessIdentity
    frontend: ProcessIdentity | None
    endpoints: Endpoints
    models: tuple[str, ...]
    store: str
    temporary: Annotated[str, Field(pattern="^/")]
    guardian: ProcessIdentity | None = None
    stop_seconds: float = 10.0
    cores: int = 0
    updated: float = 0.0

    @property
    def leader(self) -> ProcessIdentity:
        """The process that ends the run when it receives SIGTERM: the guardian if it is alive, or the supervisor."""
        return self.guardian if self.guardian is not None and self.guardian.alive() else self.supervisor

    def write(self, path: Path) -> None:
        """Replace the file atomically. Raises OSError."""
        message = self.message.encode(errors="replace").decode()  # a path in it may not be UTF-8
        content = _STATE.dump_json(replace(self, message=message, updated=time.time()), indent=2) + b"\n"
        try:
            write_atomic(path, content)
        except OSError:  # on a full disk, the blocks of the existing file are still available
            status = path.stat()
            if len(content) > max(
                status.st_size, 512 * status.st_blocks
            ):  # the write would stop in the middle
                raise
            with open(path, "r+b") as old:
                old.write(content)
                old.truncate()

    @classmethod
    def read(cls, path: Path) -> "RunState | None":
        """Read a state; None if it is missing or invalid."""
        try:
            return _STATE.validate_json(path.read_bytes(), strict=True, extra="forbid")
        except (OSError, ValidationError):
            return None


_STATE = TypeAdapter(RunState)
"""Strict validator of the state file, because processes are killed and folders removed based on it."""
