"""What the proxy reports about clients that left, as files in a folder that the supervisor writes.

`left/ID` exists for a request whose client closed its connection. `wait/MODEL` holds the seconds after which clients
of that model currently leave. `draining` holds the Unix time from which on no request is accepted any more, and
`queues-emptied` the one from which on every request in a queue came later than that.
"""

import math
import os
import time
from pathlib import Path

DIRECTORY_VARIABLE = "EDGE_EVENTS_DIR"
_REREAD_S = 0.2


class EdgeReader:
    """Reads the folder; without one, nobody has left and nothing drains."""

    def __init__(self, folder: Path | None, model_name: str) -> None:
        self._left = folder / "left" if folder else None
        safe = "/" not in model_name and model_name not in ("", ".", "..")
        self._wait = folder / "wait" / model_name if folder and safe else None
        self._draining = folder / "draining" if folder else None
        self._queues_emptied = folder / "queues-emptied" if folder else None
        self._next_read = 0.0
        self._draining_since: float | None = None
        self._queues_emptied_at: float | None = None

    @classmethod
    def from_environment(cls, model_name: str) -> "EdgeReader":
        folder = os.environ.get(DIRECTORY_VARIABLE)
        return cls(Path(folder) if folder else None, model_name)

    def has_left(self, edge_id: str) -> bool:
        """Whether the client of this request closed its connection. `edge_id` is validated by `read_arrival`."""
        return bool(edge_id) and self._left is not None and (self._left / edge_id).exists()

    def wait_s(self) -> float | None:
        """How long clients of this model wait before they leave; None if none left lately."""
        return _read_seconds(self._wait)

    def draining_since(self) -> float | None:
        """Unix time from which on requests are refused because the server is shutting down."""
        self._read_shutdown()
        return self._draining_since

    def queues_emptied_at(self) -> float | None:
        """Unix time from which on even requests that do not say when they started are refused."""
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
