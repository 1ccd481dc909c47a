"""The state of a process as the kernel reports it: running, stopped or gone."""

from pathlib import Path

STOPPED = frozenset("Tt")  # proc(5): stopped by a signal, or by a debugger
DEAD = frozenset("ZX")


def process_state(pid: int) -> str | None:
    """The state letter of /proc/PID/stat, or None where there is no such process or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[0]


def is_stopped(pid: int) -> bool:
    """Whether the process was stopped (SIGSTOP) and not continued."""
    return process_state(pid) in STOPPED


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended, stopped or not."""
    state = process_state(pid)
    return state is not None and state not in DEAD


def processes_of_session(session: int) -> list[int]:
    """The processes of a session (setsid(2)), orphans included, without those that have ended."""
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
