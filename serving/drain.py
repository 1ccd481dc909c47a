"""Waits until no request is in flight: TorchServe's own shutdown breaks the connections of those that are."""

import time
from pathlib import Path

import psutil

import client
from client import Endpoints
from serving.readiness import inspect

# Where the kernel lets a worker sleep that waits for the front end's next batch on its socket.
_AT_SOCKET = ("unix_stream", "sk_wait", "wait_woken", "inet_csk")


def drain(endpoints: Endpoints, seconds: float) -> bool:
    """True once every queue is empty and every worker waits; False when they still work after `seconds`.

    TorchServe does not say how many requests a worker has, so the system is asked what the workers are doing.
    """
    deadline = time.monotonic() + seconds
    calm = 0
    while calm < 2 and time.monotonic() < deadline:
        try:
            models = inspect(endpoints, timeout=1.0)
        except client.Timeout:
            calm = 0
            continue
        except client.ServeError:
            return True  # nobody is there to answer anything
        idle = all(
            model.queue_waiting == 0
            and all(is_waiting(worker.pid) for worker in model.workers if worker.ready)
            for model in models
        )
        calm = calm + 1 if idle else 0
        time.sleep(0.05)
    return calm >= 2


def is_waiting(pid: int) -> bool:
    """Whether the process waits for input, or is gone. Where the kernel does not tell, sleeping has to be enough."""
    try:
        place = Path(f"/proc/{pid}/wchan").read_text()
        if place not in ("", "0"):
            return any(mark in place for mark in _AT_SOCKET)
        return bool(psutil.Process(pid).status() == psutil.STATUS_SLEEPING)
    except (OSError, psutil.Error):
        return True
