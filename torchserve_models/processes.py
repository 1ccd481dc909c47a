"""Child processes: start one in a new session, end a whole session, run a module to its end."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

_KILL_ATTEMPTS = 40
_KILL_INTERVAL_S = 0.1

# Runs in the child, which then becomes the command: when the thread that started it ends, the kernel sends SIGTERM.
# A preexec_fn could do the same, but is not safe in a process with threads.
_END_WITH_PARENT = """
import ctypes, os, signal, sys
for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, which the command would inherit
    signal.signal(number, signal.SIG_DFL)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent process has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


def start_session(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    cwd: Path | None = None,
    output: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start a process that leads a new session and that ends with the thread that started it.

    A Ctrl-C in the terminal does not reach it, and its descendants are found by the session after it has ended.

    Args:
        command: The program, looked up in PATH, and its arguments.
        environment: The complete environment.
        cwd: The working directory.
        output: Receives stdout and stderr; by default both are inherited.
        pass_fds: File descriptors that the process inherits.

    Raises:
        OSError: The program does not exist, or no process can be started.
    """
    program = shutil.which(command[0], path=environment.get("PATH"))
    if program is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), program, *command[1:]],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        pass_fds=pass_fds,
        start_new_session=True,
    )


def session_processes(session: int) -> list[psutil.Process]:
    """Return the live processes of a session (setsid(2)), including orphans."""
    return [process for pid in psutil.pids() if (process := _in_session(pid, session))]


def _in_session(pid: int, session: int) -> psutil.Process | None:
    try:
        if os.getsid(pid) == session:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else process
    except (OSError, psutil.Error):
        pass
    return None


def kill_processes(find: Callable[[], list[psutil.Process]]) -> None:
    """Send SIGKILL to the processes that `find` returns until it finds none, as they may still start others."""
    for _ in range(_KILL_ATTEMPTS):
        processes = find()
        if not processes:
            return
        for process in processes:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(processes, timeout=_KILL_INTERVAL_S)


@dataclass(frozen=True)
class ModuleResult:
    """The result of a module that ran in a separate process.

    Attributes:
        returncode: Exit code; negative if a signal ended the process.
        stdout: Everything it printed.
        message: Last line of its stderr, which may be empty, or the signal that ended it.
    """

    returncode: int
    stdout: bytes
    message: str


def run_module(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path | None = None
) -> ModuleResult:
    """Run `python -m MODULE` until it ends. Raises OSError if no process can be started."""
    process = subprocess.run(
        [sys.executable, "-P", "-s", "-m", module, *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    message = process.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        message = f"the process was ended by {name}; the system sends SIGKILL when memory runs out"
    return ModuleResult(process.returncode, process.stdout, message)
