"""State of a process as reported by the kernel: running, stopped or ended."""

from pathlib import Path

import psutil

STOPPED = frozenset("Tt")  # proc(5): stopped by a signal, or by a debugger
DEAD = frozenset("ZX")
# Kernel functions in which a worker sleeps while it waits for the next batch on its socket.
_SOCKET_WAIT_CHANNELS = ("unix_stream", "sk_wait", "wait_woken", "inet_csk")


def read_process_state(pid: int) -> str | None:
    """Return the state letter in /proc/PID/stat; None if the file does not exist."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[0]


def is_stopped(pid: int) -> bool:
    """Return whether the process was stopped (SIGSTOP) and not continued."""
    return read_process_state(pid) in STOPPED


def is_running(pid: int) -> bool:
    """Return whether the process exists and has not ended, stopped or not."""
    state = read_process_state(pid)
    return state is not None and state not in DEAD


def is_waiting(pid: int) -> bool:
    """Return whether the process waits for input or has ended.

    If the kernel hides the wait channel (/proc/PID/wchan), any sleeping process is considered waiting.
    """
    try:
        wait_channel = Path(f"/proc/{pid}/wchan").read_text()
        if wait_channel not in ("", "0"):
            return any(mark in wait_channel for mark in _SOCKET_WAIT_CHANNELS)
        return bool(psutil.Process(pid).status() == psutil.STATUS_SLEEPING)
    except (OSError, psutil.Error):
        return True
