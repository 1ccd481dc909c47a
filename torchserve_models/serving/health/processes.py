"""Observe worker processes and their activity files."""

import time
from collections.abc import Iterable, Set
from dataclasses import replace
from pathlib import Path

import psutil

from handlers.core.activity import read_activity
from torchserve_models.client.readiness_report import Key
from torchserve_models.serving.health.model_states import ObservedVersion, ObservedWorker
from torchserve_models.serving.system import process_state


class WorkerProcesses:
    """Worker processes by process id, with their creation time, because process ids are reused."""

    def __init__(self, activity_dir: Path) -> None:
        self._activity_dir = activity_dir
        self._known: dict[int, psutil.Process] = {}

    def observe(self, models: Iterable[ObservedVersion]) -> tuple[ObservedVersion, ...]:
        """Return the models with the current state of their workers."""
        observed = tuple(
            replace(model, workers=tuple(self.observe_worker(worker) for worker in model.workers))
            for model in models
        )
        pids = {worker.pid for model in observed for worker in model.workers}
        self._known = {pid: process for pid, process in self._known.items() if pid in pids}
        return observed

    def observe_worker(self, worker: ObservedWorker) -> ObservedWorker:
        if worker.pid <= 0:
            return replace(worker, alive=False)
        try:
            process = self._known.get(worker.pid)
            if process is None:
                process = self._known[worker.pid] = psutil.Process(worker.pid)
            status = process.status() if process.is_running() else psutil.STATUS_ZOMBIE
        except psutil.Error:
            status = psutil.STATUS_ZOMBIE
        if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return replace(worker, alive=False, stopped=False, activity=None)
        activity = read_activity(self._activity_dir / str(worker.pid))
        waiting = activity is not None or process_state.is_waiting(worker.pid)
        stopped = process_state.is_stopped(worker.pid)
        return replace(worker, alive=True, stopped=stopped, activity=activity, waiting=waiting)

    def kill(self, pid: int) -> bool:
        """Send SIGKILL to the worker, unless its process has ended; return whether the signal was sent."""
        process = self._known.get(pid)
        try:
            if process is None or not process.is_running():
                return False
            process.kill()
        except psutil.Error:
            return False
        return True


_FRESH_S = 3.0


class QueueWatchdog:
    """Watchdog for requests that wait although the workers of their version are idle.

    This happens if TorchServe's thread that passes requests to the worker has died.
    """

    def __init__(self) -> None:
        self._since: dict[Key, tuple[float, int]] = {}

    def stalled_s(self, model: ObservedVersion, described_s: float) -> float:
        """Return the seconds that requests have waited beside idle workers; 0 if the queue moves.

        `described_s` is the age of `model.queue_waiting` in seconds.
        """
        now = time.monotonic()
        key = model.name, model.version
        reporting = [worker for worker in model.workers if worker.ready and worker.activity]
        stalled = (
            model.queue_waiting > 0
            and described_s < _FRESH_S
            and len(reporting) == len(model.workers) > 0
            and not any(worker.computing for worker in reporting)
        )
        answers = sum(worker.activity.answers for worker in reporting if worker.activity)
        if not stalled:
            self._since.pop(key, None)
            return 0.0
        since, before = self._since.get(key, (now, answers))
        if answers != before:
            since = now
        self._since[key] = since, answers
        return now - since

    def keep_only(self, keys: Set[Key]) -> None:
        """Forget all versions that are not in `keys`."""
        self._since = {key: value for key, value in self._since.items() if key in keys}
