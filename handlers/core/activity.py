"""What a worker is doing, in a small shared file that the supervisor reads without asking the worker.

A worker that computes a long batch and a worker that hangs look the same to TorchServe. Here they differ: a thread
updates `heartbeat` twice a second as long as the process runs Python code, and the handler updates `progress` while
it works on a batch.

| heartbeat | batch | progress | meaning |
|---|---|---|---|
| young | none | - | idle |
| young | running | young | computing: batches, sub-batches or decoding steps go on |
| young | running | old | one long operation, or a hang that leaves Python running (a lock, a system call) |
| old | - | - | stopped (SIGSTOP), starved of CPU, or native code that hangs while it holds the interpreter lock |
| no file | - | - | loading, or a handler that is not based on `Handler` |
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
"""Environment variable that names the folder; the file in it is named after the worker's process id."""

HEARTBEAT_INTERVAL_S = 0.5

# heartbeat, batch_started, progress, last_answer; requests in the batch, batches, answers; held.
_LAYOUT = struct.Struct("<4d3Q?")


@dataclass(frozen=True)
class Activity:
    """One worker's state. Times are `time.monotonic()` seconds, which all processes of a machine share.

    `batch_started` is 0 while the worker is idle. `progress` is the last time that the current batch moved on: its
    start, the end of a sub-batch, or a decoding step. `answers` counts requests that were answered, errors included.
    `held`: the worker keeps a describe call, so that it gets no requests (holding.py).
    """

    heartbeat: float
    batch_started: float
    progress: float
    last_answer: float
    batch_requests: int
    batches: int
    answers: int
    held: bool = False

    @property
    def is_computing(self) -> bool:
        return self.batch_started > 0


class ActivityWriter:
    """Writes one worker's state through a memory map: a few hundred nanoseconds for each update.

    Without a path the state is kept in memory and nobody reads it, so that a handler need not check.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._buffer: mmap.mmap | bytearray = bytearray(_LAYOUT.size)
        if path is not None:
            with open(path, "w+b") as file:
                file.write(bytes(_LAYOUT.size))  # a page that a full disk does not hold would end the worker
                file.flush()
                self._buffer = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._values = [time.monotonic(), 0.0, 0.0, 0.0, 0, 0, 0, False]
        self._lock = threading.Lock()
        self._write()

    @classmethod
    def from_environment(cls) -> Self:
        """For this process, in the folder that the supervisor names; in memory where it names none."""
        folder = os.environ.get(DIRECTORY_VARIABLE)
        try:
            return cls(Path(folder) / str(os.getpid()) if folder else None)
        except OSError:  # a full disk must not keep a worker from serving
            return cls(None)

    def start_heartbeat(self) -> None:
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def begin_batch(self, requests: int) -> None:
        now = time.monotonic()
        self._update(batch_started=now, progress=now, requests=requests)

    def advance(self) -> None:
        """The current batch has moved on."""
        self._update(progress=time.monotonic())

    def set_held(self, held: bool) -> None:
        """Whether the current batch, a describe call, is kept on purpose."""
        with self._lock:
            self._values[7] = held
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
        # One copy: `pack_into` fills the buffer with zeros first, which a reader would see now and then.
        self._buffer[:] = _LAYOUT.pack(*self._values)


def read_activity(path: Path) -> Activity | None:
    """The state in the file, or None where there is none, as for a handler that is not based on ours."""
    try:
        return Activity(*_LAYOUT.unpack(path.read_bytes()))
    except (OSError, struct.error):
        return None
