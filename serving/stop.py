"""Ends a run from outside: asks its supervisor, or does it itself when that is gone."""

import os
import signal
import time
from pathlib import Path

from serving import process
from serving.errors import AlreadyRunning, RunError
from serving.rundir import RunDir
from serving.state import State
from serving.supervise import GRACE, SHUTDOWN, clean_up

_PATIENCE = GRACE + SHUTDOWN + 4.0


def stop(run: RunDir) -> str:
    """What was done, in a sentence. Raises RunError when something is left."""
    state = State.read(run.state)
    if state is None:
        return f"nothing runs in {run.path}"
    start = time.monotonic()
    if state.supervisor.alive():
        os.kill(state.supervisor.pid, signal.SIGTERM)
        while state.supervisor.alive() and time.monotonic() - start < _PATIENCE:
            time.sleep(0.05)
        if state.supervisor.alive():
            os.kill(state.supervisor.pid, signal.SIGKILL)
    elif state.phase in ("stopped", "failed") and not _leftovers(state):
        return f"nothing runs in {run.path}"
    _clean(run, state)
    if left := _leftovers(state):
        raise RunError(f"these processes could not be ended: {', '.join(map(str, left))}")
    return f"stopped in {time.monotonic() - start:.1f} s"


def _clean(run: RunDir, state: State) -> None:
    try:
        with run.lock():
            clean_up(state, lambda _: None)
    except AlreadyRunning:
        return  # somebody has started the next one already


def _leftovers(state: State) -> list[int]:
    if state.frontend is None:
        return []
    return [member.pid for member in process.members(state.frontend, Path(state.temporary))]
