"""The state of a process as the kernel reports it: running, stopped or gone."""

from pathlib import Path

import psutil

STOPPED = frozenset("Tt")  # proc(5): stopped by a signal, or by a debugger
DEAD = frozenset("ZX")
# Where the kernel lets a worker sleep that waits for the front end's next batch on its socket.
_SOCKET_WAIT_CHANNELS = ("unix_stream", "sk_wait", "wait_woken", "inet_csk")


def read_process_state(pid: int) -> str | None:
    """Return the state letter of /proc/PID/stat; None if there is no such process or no /proc."""
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


def processes_of_session(session: int) -> list[int]:
    """Return the live processes of a session (setsid(2)), including orphans."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (
                (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            )
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == session and fields[0] not in DEAD:
            found.append(int(folder.name))
    return sorted(found)


def is_waiting(pid: int) -> bool:
    """Return whether the process waits for input or is gone. If wchan is unavailable, a sleeping process counts."""
    try:
        wait_channel = Path(f"/proc/{pid}/wchan").read_text()
        if wait_channel not in ("", "0"):
            return any(mark in wait_channel for mark in _SOCKET_WAIT_CHANNELS)
        return bool(psutil.Process(pid).status() == psutil.STATUS_SLEEPING)
    except (OSError, psutil.Error):
        return True
