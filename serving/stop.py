"""Ends a run from outside: asks its supervisor, or does it itself when that is gone."""

import os
import signal
import time
from pathlib import Path

from serving import process
from serving.errors import AlreadyRunning, RunError
from serving.rundir import RunDir
from serving.state import Identity, State
from serving.supervise import END, SHUTDOWN, clean_up

_PATIENCE = END + 0.3
_OVER = ("stopped", "failed")


def stop(run: RunDir) -> str:
    """What was done, in a sentence. Raises RunError when something is left."""
    state = State.read(run.state)
    if state is None:
        return f"nothing runs in {run.path}"
    start = time.monotonic()
    # The supervisor of a run that is over may live on, as a program of its own that once served.
    if state.phase in _OVER:
        if not _leftovers(state):
            return f"nothing runs in {run.path}"
    elif state.supervisor.alive():
        _signal(state.supervisor, signal.SIGTERM)
        until = start + _PATIENCE
        while state.supervisor.alive() and time.monotonic() < until:
            if _is_over(run):  # only its process has to end yet
                until = min(until, time.monotonic() + 1.0)
            time.sleep(0.05)
        if state.supervisor.alive() and not _is_over(run):
            _signal(state.supervisor, signal.SIGKILL)
    _clean(run, state, min(SHUTDOWN, max(0.0, _PATIENCE - (time.monotonic() - start))))
    if left := _leftovers(state):
        raise RunError(f"these processes could not be ended: {', '.join(map(str, left))}")
    return f"stopped in {time.monotonic() - start:.1f} s"


def _is_over(run: RunDir) -> bool:
    """Whether the supervisor has said its last word; its process may live on."""
    state = State.read(run.state)
    return state is not None and state.phase in _OVER


def _signal(supervisor: Identity, number: signal.Signals) -> None:
    try:
        os.kill(supervisor.pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise RunError(
            f"process {supervisor.pid} belongs to somebody else; only they, or root, can end it"
        ) from error


def _clean(run: RunDir, state: State, patience: float) -> None:
    try:
        with run.lock():
            clean_up(state, lambda _: None, patience)
    except AlreadyRunning:
        return  # somebody has started the next one already


def _leftovers(state: State) -> list[int]:
    if state.frontend is None:
        return []
    return [member.pid for member in process.members(state.frontend, Path(state.temporary))]
