"""Waits until no request is in flight: TorchServe's own shutdown breaks the connections of those that are."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from handlers.core.activity import read_activity
from torchserve_models import client
from torchserve_models.client import Endpoints
from torchserve_models.serving.health.model_states import Model, inspect

# Where the kernel lets a worker sleep that waits for the front end's next batch on its socket.
_AT_SOCKET = ("unix_stream", "sk_wait", "wait_woken", "inet_csk")
_CALM_LOOKS = 3
_STEP_S = 0.1


def drain(
    endpoints: Endpoints,
    seconds: float,
    activity: Path | None = None,
    hurry: Callable[[], bool] = lambda: False,
    on_empty: Callable[[], None] = lambda: None,
) -> bool:
    """True once every queue is empty and every worker waits; False when they still work after `seconds`.

    `hurry` ends the wait early. `on_empty` is called once: when every queue is empty, or after half of the time.
    From then on new requests can be refused, as clients that keep their connections open may send some all the time.

    TorchServe does not say how many requests a worker has: the worker's activity file does, and for workers without
    one the system is asked what they are doing.
    """
    deadline = time.monotonic() + seconds
    calm, told = 0, False
    while calm < _CALM_LOOKS and time.monotonic() < deadline and not hurry():
        if not told and deadline - time.monotonic() < seconds / 2:
            told = True
            on_empty()
        try:
            models = inspect(endpoints, timeout=1.0)
        except client.Unavailable:
            return True  # the front end is gone, and nothing will be answered
        except client.ServeError:
            calm = 0
            time.sleep(_STEP_S)
            continue
        if not told and not any(model.queue_waiting for model in models):
            told = True
            on_empty()
        calm = calm + 1 if all(_is_idle(model, activity) for model in models) else 0
        time.sleep(_STEP_S)
    return calm >= _CALM_LOOKS


def _is_idle(model: Model, activity: Path | None) -> bool:
    return model.queue_waiting == 0 and all(
        is_idle(worker.pid, activity) for worker in model.workers if worker.ready
    )


def is_idle(pid: int, activity: Path | None) -> bool:
    """Whether that worker has no batch in hand."""
    reported = read_activity(activity / str(pid)) if activity is not None else None
    return not (reported is not None and reported.is_computing) and is_waiting(pid)


def is_waiting(pid: int) -> bool:
    """Whether the process waits for input, or is gone. Where the kernel does not tell, sleeping has to be enough."""
    try:
        place = Path(f"/proc/{pid}/wchan").read_text()
        if place not in ("", "0"):
            return any(mark in place for mark in _AT_SOCKET)
        return bool(psutil.Process(pid).status() == psutil.STATUS_SLEEPING)
    except (OSError, psutil.Error):
        return True
