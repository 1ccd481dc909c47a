"""Keep a worker that is about to be ended from taking requests.

TorchServe collects each batch in a thread of its own for every worker. If the worker is ended meanwhile, what the
thread has collected is never answered. So the worker is ended while that thread waits for the answer to a describe
call: then it has collected nothing else. Whoever ends the worker asks the supervisor for this (POST
/workers/PID/hold) and sends describe calls until the worker has one; the worker keeps it for up to HOLD_S seconds.
"""

import time
from pathlib import Path

from handlers.core.activity import ActivityWriter

HOLD_S = 10.0
ASKED_LIMIT_S = 30.0
"""A hold that was asked for earlier is out of date."""
_STEP_S = 0.05


def ask_to_hold(folder: Path, pid: int) -> None:
    """Let the worker `pid`, whose activity file is in `folder`, keep its next describe call. Raises OSError."""
    _path(folder, pid).touch()


def hold_if_asked(activity: ActivityWriter, hold_s: float = HOLD_S) -> None:
    """Within a describe call: return after `hold_s` seconds if this worker was asked to hold, else at once."""
    if activity.path is None:
        return
    asked = _path(activity.path.parent, int(activity.path.name))
    try:
        age_s = time.time() - asked.stat().st_mtime
        asked.unlink()
    except OSError:
        return
    if age_s > ASKED_LIMIT_S:
        return
    activity.set_held(True)
    try:
        end = time.monotonic() + hold_s
        while time.monotonic() < end:
            time.sleep(_STEP_S)
            activity.advance()
    finally:
        activity.set_held(False)


def _path(folder: Path, pid: int) -> Path:
    return folder / f"{pid}.hold"
