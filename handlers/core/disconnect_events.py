"""Read disconnects of clients and the server's shutdown from the files that the supervisor writes.

| file | content |
|---|---|
| `left/ID` | the file exists if the client of request ID has closed its connection |
| `wait/MODEL` | seconds after which clients of MODEL currently disconnect |
| `draining` | Unix time at which the server stopped accepting requests |
| `queues-emptied` | Unix time since which all requests in the queues were sent after `draining` |
"""

import math
import os
import time
from pathlib import Path

DIRECTORY_VARIABLE = "EDGE_EVENTS_DIR"
_REREAD_S = 0.2


class DisconnectEventsReader:
    """A reader of one model's events. Without a folder, the reader reports no events."""

    def __init__(self, folder: Path | None, model_name: str) -> None:
        self._left = folder / "left" if folder else None
        is_safe = "/" not in model_name and model_name not in ("", ".", "..")
        self._wait = folder / "wait" / model_name if folder and is_safe else None
        self._draining = folder / "draining" if folder else None
        self._queues_emptied = folder / "queues-emptied" if folder else None
        self._next_read = 0.0
        self._draining_since: float | None = None
        self._queues_emptied_at: float | None = None

    @classmethod
    def from_environment(cls, model_name: str) -> "DisconnectEventsReader":
        folder = os.environ.get(DIRECTORY_VARIABLE)
        return cls(Path(folder) if folder else None, model_name)

    def has_disconnected(self, edge_id: str) -> bool:
        """Return True if the client of a request has disconnected. `edge_id` must be validated (`read_timing`)."""
        return bool(edge_id) and self._left is not None and (self._left / edge_id).exists()

    def wait_s(self) -> float | None:
        """Return the seconds after which clients of this model disconnect; None if no client did recently."""
        return _read_seconds(self._wait)

    def draining_since(self) -> float | None:
        """Return the Unix time from which requests are rejected because of a shutdown, or None."""
        self._read_shutdown()
        return self._draining_since

    def queues_emptied_at(self) -> float | None:
        """Return the Unix time from which requests without a start time are rejected as well, or None."""
        self._read_shutdown()
        return self._queues_emptied_at

    def _read_shutdown(self) -> None:
        now = time.monotonic()
        if now >= self._next_read:
            self._next_read = now + _REREAD_S
            self._draining_since = _read_seconds(self._draining)
            self._queues_emptied_at = _read_seconds(self._queues_emptied)


def _read_seconds(path: Path | None) -> float | None:
    if path is None:
        return None
    try:
        seconds = float(path.read_text()[:40])
    except (OSError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
