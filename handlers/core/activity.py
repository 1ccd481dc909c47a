"""Report a worker's state in a small shared file, which the supervisor reads without a request to the worker.

TorchServe cannot distinguish a worker that computes a long batch from a worker that hangs. The file makes this
possible: a thread updates `heartbeat` twice a second as long as the process runs Python code, and the handler updates
`progress` while it computes a batch.

| heartbeat | batch | progress | meaning |
|---|---|---|---|
| recent | none | - | idle |
| recent | running | recent | computing: batches, sub-batches or decoding steps advance |
| recent | running | old | one long operation, or a hang outside of the interpreter lock (a lock, a system call) |
| old | - | - | stopped (SIGSTOP), without CPU time, or native code that hangs and holds the interpreter lock |
| no file | - | - | loading, or a handler that is not a subclass of `Handler` |
"""

import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

DIRECTORY_VARIABLE = "WORKER_ACTIVITY_DIR"
"""Environment variable with the folder of the activity files. A file's name is its worker's process id."""

HEARTBEAT_INTERVAL_S = 0.5

# heartbeat, batch_started, progress, last_answer; requests in the batch, batches, answers; on_hold.
_LAYOUT = struct.Struct("<4d3Q?")


@dataclass(frozen=True)
class Activity:
    """The state of one worker. Times are `time.monotonic()` seconds, which all processes of a machine share.

    Attributes:
        heartbeat: The last time that the process ran Python code.
        batch_started: When the current batch started; 0 while the worker is idle.
        progress: When the current batch last advanced: its start, the end of a sub-batch, or a decoding step.
        last_answer: When the last batch ended.
        batch_requests: Requests in the current or last batch.
        batches: Batches that have ended.
        answers: Answered requests, including those that were answered with an error.
        on_hold: Whether the worker delays a describe call so that it receives no requests (worker_hold.py).
    """

    heartbeat: float
    batch_started: float
    progress: float
    last_answer: float
    batch_requests: int
    batches: int
    answers: int
    on_hold: bool = False

    @property
    def is_computing(self) -> bool:
        return self.batch_started > 0


class ActivityWriter:
    """A writer of one worker's state through a memory map. An update takes a few hundred nanoseconds.

    Without a path, the writer keeps the state in memory only, so that a handler can use it without a supervisor.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._buffer: mmap.mmap | bytearray = bytearray(_LAYOUT.size)
        if path is not None:
            with open(path, "w+b") as file:
                file.write(
                    bytes(_LAYOUT.size)
                )  # without these bytes, a write on a full disk would kill the worker
                file.flush()
                self._buffer = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._values = [time.monotonic(), 0.0, 0.0, 0.0, 0, 0, 0, False]
        self._lock = threading.Lock()
        self._write()

    @classmethod
    def from_environment(cls) -> Self:
        """Return the writer of this process. It writes to memory only if `WORKER_ACTIVITY_DIR` is not set."""
        folder = os.environ.get(DIRECTORY_VARIABLE)
        try:
            return cls(Path(folder) / str(os.getpid()) if folder else None)
        except OSError:  # a full disk must not stop a worker from serving
            return cls(None)

    def start_heartbeat(self) -> None:
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def begin_batch(self, requests: int) -> None:
        now = time.monotonic()
        self._update(batch_started=now, progress=now, requests=requests)

    def advance(self) -> None:
        """Record that the current batch has advanced."""
        self._update(progress=time.monotonic())

    def set_on_hold(self, on_hold: bool) -> None:
        """Record whether the current batch, a describe call, is delayed on purpose."""
        with self._lock:
            self._values[7] = on_hold
            self._write()

    def end_batch(self) -> None:
        now = time.monotonic()
        with self._lock:
            self._values[3:7] = [now, 0, self._values[5] + 1, self._values[6] + self._values[4]]
            self._values[0:3] = [now, 0.0, now]
            self._write()

    def _update(
        self, *, progress: float, batch_started: float | None = None, requests: int | None = None
    ) -> None:
        with self._lock:
            self._values[2] = progress
            if batch_started is not None:
                self._values[1] = batch_started
            if requests is not None:
                self._values[4] = requests
            self._write()

    def _beat(self) -> None:
        while True:
            with self._lock:
                self._values[0] = time.monotonic()
                self._write()
            time.sleep(HEARTBEAT_INTERVAL_S)

    def _write(self) -> None:
        # Copy once: `pack_into` fills the buffer with zeros first, and a reader could see them.
        self._buffer[:] = _LAYOUT.pack(*self._values)


def read_activity(path: Path) -> Activity | None:
    """Return the state in an activity file; None if the file is missing or too short."""
    try:
        return Activity(*_LAYOUT.unpack(path.read_bytes()))
    except (OSError, struct.error):
        return None
