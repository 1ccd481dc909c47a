"""Stop the server of a run folder through its supervisor; without supervisor, end its processes directly."""

import os
import signal
import time
from pathlib import Path

from torchserve_models.serving.errors import AlreadyRunning, RunError
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.run_plan import SHUTDOWN_S
from torchserve_models.serving.run_config.state import ProcessIdentity, RunState
from torchserve_models.serving.supervisor import frontend_process
from torchserve_models.serving.supervisor.cleanup import clean_up

_FINAL_PHASES = ("stopped", "failed")
_MARGIN_S = 1.0
_SECOND_SIGNAL_S = 1.2
"""Pause before the second signal; the supervisor treats two signals within a second as one."""
_QUICK_END_S = _SECOND_SIGNAL_S + SHUTDOWN_S + 2.0


def stop(run: RunDir, *, now: bool = False) -> str:
    """Stop the server; return a message for the user.

    Args:
        run: The server's run folder.
        now: End running requests instead of waiting for them up to the grace period.

    Raises:
        RunError: A process could not be ended.
    """
    state = RunState.read(run.state)
    if state is None:
        return f"nothing runs in {run.path}"
    start = time.monotonic()
    timeout = _QUICK_END_S if now else state.stop_seconds + _MARGIN_S
    # The supervisor may be a Python program that called `serving.start` and continues after the end of the run.
    if state.phase in _FINAL_PHASES:
        if not _remaining_processes(state):
            return f"nothing runs in {run.path}"
    elif (leader := state.leader).alive():
        _signal(leader, signal.SIGTERM)
        deadline = start + timeout
        second_signal_at = start + _SECOND_SIGNAL_S if now else deadline
        while leader.alive() and time.monotonic() < deadline:
            if _has_ended(run):  # the server has stopped; only the supervisor's process remains
                deadline = min(deadline, time.monotonic() + 1.0)
            elif time.monotonic() > second_signal_at:
                second_signal_at = deadline
                _signal(leader, signal.SIGTERM)
            time.sleep(0.05)
        if not _has_ended(run):
            for process in (leader, state.supervisor):  # a guardian would start the supervisor again
                if process.alive():
                    _signal(process, signal.SIGKILL)
    _clean_up(run, state, min(SHUTDOWN_S, max(0.0, timeout - (time.monotonic() - start))))
    if remaining := _remaining_processes(state):
        raise RunError(
            f"processes {', '.join(map(str, remaining))} did not end; end them with `kill -9`, or restart the machine"
        )
    return f"stopped in {time.monotonic() - start:.1f} s"


def _has_ended(run: RunDir) -> bool:
    """Return whether the supervisor has reached a final phase; its process may still run."""
    state = RunState.read(run.state)
    return state is not None and state.phase in _FINAL_PHASES


def _signal(process: ProcessIdentity, number: signal.Signals) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise RunError(
            f"process {process.pid} belongs to another user; only that user or root can end it"
        ) from error


def _clean_up(run: RunDir, state: RunState, timeout_s: float) -> None:
    try:
        with run.lock():
            clean_up(state, lambda _: None, timeout_s)
    except AlreadyRunning:
        return  # another server has been started meanwhile


def _remaining_processes(state: RunState) -> list[int]:
    if state.frontend is None:
        return []
    return [
        member.pid for member in frontend_process.frontend_processes(state.frontend, Path(state.temporary))
    ]
