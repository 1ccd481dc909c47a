"""Wait until no request is in flight, because TorchServe breaks open connections when it shuts down."""

import time
from collections.abc import Callable
from pathlib import Path

from handlers.core.activity import read_activity
from torchserve_models import client
from torchserve_models.client import Endpoints
from torchserve_models.serving.health.model_states import ObservedVersion, inspect
from torchserve_models.serving.system.process_state import is_waiting

_IDLE_POLLS = 3
_STEP_S = 0.1


def wait_until_drained(
    endpoints: Endpoints,
    seconds: float,
    activity: Path | None = None,
    should_skip_waiting: Callable[[], bool] = lambda: False,
    on_empty: Callable[[], None] = lambda: None,
) -> bool:
    """Wait until all queues are empty and all workers idle; return False if this takes longer than `seconds`.

    TorchServe does not report how many requests a worker has. The worker's activity file does; for workers without
    one, the kernel's process state is used.

    Args:
        endpoints: Addresses of the server.
        seconds: Maximum time to wait.
        activity: Folder of the workers' activity files.
        should_skip_waiting: Ends the wait when it returns True.
        on_empty: Called once, when every queue is empty or half of the time has passed. The caller can then reject
            new requests, which clients with open connections may send without end.
    """
    deadline = time.monotonic() + seconds
    idle_polls, reported_empty = 0, False
    while idle_polls < _IDLE_POLLS and time.monotonic() < deadline and not should_skip_waiting():
        if not reported_empty and deadline - time.monotonic() < seconds / 2:
            reported_empty = True
            on_empty()
        try:
            models = inspect(endpoints, timeout=1.0)
        except client.Unavailable:
            return True  # the front end has ended, so no request will be answered
        except client.TorchServeError:
            idle_polls = 0
            time.sleep(_STEP_S)
            continue
        if not reported_empty and not any(model.queue_waiting for model in models):
            reported_empty = True
            on_empty()
        idle_polls = idle_polls + 1 if all(_is_idle(model, activity) for model in models) else 0
        time.sleep(_STEP_S)
    return idle_polls >= _IDLE_POLLS


def _is_idle(model: ObservedVersion, activity: Path | None) -> bool:
    return model.queue_waiting == 0 and all(
        is_idle(worker.pid, activity) for worker in model.workers if worker.ready
    )


def is_idle(pid: int, activity: Path | None) -> bool:
    """Return whether the worker has no batch in progress."""
    reported = read_activity(activity / str(pid)) if activity is not None else None
    return not (reported is not None and reported.is_computing) and is_waiting(pid)
