"""State file of one server: its supervisor, its endpoints and whether it is ready."""

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import psutil

from torchserve_models.client import Endpoints

Phase = Literal["starting", "ready", "not ready", "restarting", "stopping", "stopped", "failed"]


@dataclass(frozen=True)
class Identity:
    """Identity of a process: process id and start time, because ids are reused."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Identity":
        return cls(pid, _process_start_time(pid))

    def alive(self) -> bool:
        """Return whether the process runs; False for zombies."""
        try:
            same = _process_start_time(self.pid) == self.started
            return bool(same and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except (OSError, psutil.Error):
            return False


def _process_start_time(pid: int) -> str:
    """Return the start time; on Linux boot id and ticks, which clock changes do not affect."""
    if sys.platform != "linux":
        return str(psutil.Process(pid).create_time())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # The second field is the program's name in brackets, and may itself hold spaces and brackets; see proc(5).
    after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return f"{boot} {after_name[22 - 3]}"


@dataclass(frozen=True)
class State:
    """`temporary` is the front end's folder for temporary files: it holds the workers' sockets and models.

    `stop_seconds` is the longest that the supervisor takes to end after SIGTERM.
    """

    phase: Phase
    message: str
    supervisor: Identity
    frontend: Identity | None
    endpoints: Endpoints
    models: tuple[str, ...]
    store: str
    temporary: str
    stop_seconds: float = 10.0
    updated: float = 0.0

    def write(self, path: Path) -> None:
        """Replace the file atomically. Raises OSError."""
        new = path.with_suffix(f".{os.getpid()}.new")
        text = json.dumps(asdict(replace(self, updated=time.time())), indent=2) + "\n"
        try:
            new.write_text(text, "utf-8")
            new.replace(path)
        except OSError:  # on a full disk, what the file occupies already is still there
            with suppress(OSError):
                new.unlink()
            content, status = text.encode(), path.stat()
            if len(content) > max(status.st_size, 512 * status.st_blocks):  # it would end in the middle
                raise
            with open(path, "r+b") as old:
                old.write(content)
                old.truncate()

    @classmethod
    def read(cls, path: Path) -> "State | None":
        """Read a state; None if it is missing or invalid."""
        try:
            record: dict[str, Any] = json.loads(path.read_text("utf-8"))
            frontend = record.pop("frontend")
            state = cls(
                supervisor=Identity(**record.pop("supervisor")),
                frontend=None if frontend is None else Identity(**frontend),
                endpoints=Endpoints(**record.pop("endpoints")),
                models=tuple(record.pop("models")),
                **record,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return state if state._has_valid_types() else None

    def _has_valid_types(self) -> bool:
        """Validate types: signals are sent and folders removed based on a state."""
        processes = [self.supervisor, *filter(None, [self.frontend])]
        texts = [self.message, self.store, self.temporary, *self.models, *asdict(self.endpoints).values()]
        return (
            self.phase in get_args(Phase)
            and all(
                type(process.pid) is int and process.pid > 0 and isinstance(process.started, str)
                for process in processes
            )
            and all(isinstance(text, str) for text in texts)
            and all(type(seconds) in (int, float) for seconds in (self.stop_seconds, self.updated))
            and Path(self.temporary).is_absolute()
        )
