"""The most memory that a process held at once, as Linux counts it."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil


def reset(processes: Iterable[psutil.Process]) -> None:
    """Counting begins anew, from what each holds now; where the system does not let us, it goes on."""
    for process in processes:
        with suppress(OSError):
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def largest_mb(processes: Iterable[psutil.Process]) -> float | None:
    """Megabytes of the one that held most, pages that others hold too included; None where nothing is known."""
    found = []
    for process in processes:
        with suppress(OSError, ValueError, IndexError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            found.append(int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6)
    return max(found, default=None)
