"""Hold a worker before it is stopped, so that it receives no requests.

TorchServe collects the batches of each worker in a thread. If the worker stops, the requests that the thread has
collected are lost. While the thread waits for the answer to a describe call, it has no other request, and the worker
can be stopped without loss. To stop a worker, a client therefore requests a hold from the supervisor
(POST /workers/PID/hold) and sends describe calls until the worker receives one. The worker delays its answer by up to
HOLD_S.
"""

import time
from pathlib import Path

from handlers.core.activity import ActivityWriter

HOLD_S = 10.0
MAX_REQUEST_AGE_S = 30.0
"""Maximum age of a hold request. Older ones are ignored."""
_POLL_INTERVAL_S = 0.05


def request_hold(folder: Path, pid: int) -> None:
    """Request that worker `pid` delays its next describe call. `folder` has its activity file. Raises OSError."""
    _path(folder, pid).touch()


def hold_if_requested(activity: ActivityWriter, hold_s: float = HOLD_S) -> None:
    """Wait for `hold_s` seconds if a hold was requested for this worker. Call during a describe call."""
    if activity.path is None:
        return
    request_file = _path(activity.path.parent, int(activity.path.name))
    try:
        age_s = time.time() - request_file.stat().st_mtime
        request_file.unlink()
    except OSError:
        return
    if age_s > MAX_REQUEST_AGE_S:
        return
    activity.set_on_hold(True)
    try:
        end = time.monotonic() + hold_s
        while time.monotonic() < end:
            time.sleep(_POLL_INTERVAL_S)
            activity.advance()
    finally:
        activity.set_on_hold(False)


def _path(folder: Path, pid: int) -> Path:
    return folder / f"{pid}.hold"
