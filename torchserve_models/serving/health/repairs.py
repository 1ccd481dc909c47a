"""What the supervisor does about broken workers: kill those that hang, replace lost ones, revive given-up models."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from torchserve_models import client
from torchserve_models.client import Client, Endpoints
from torchserve_models.serving.health.metrics import Metrics
from torchserve_models.serving.health.model_states import Key, Model, Worker, replace_lost
from torchserve_models.serving.health.readiness import QUEUE_STALL_LIMIT_S, Version

STOPPED_LIMIT_S = 3.0
"""Of a worker that a signal has suspended."""
HEARTBEAT_KILL_S = 8.0
"""Age of the heartbeat of a worker that is killed; see HEARTBEAT_LIMIT_S for readiness."""
STALL_SLACK_S = 5.0
"""Beyond responseTimeout, at which TorchServe itself kills the worker."""
MIN_HANG_S = 2.0
"""A worker is killed only when it was seen to hang for so long: after a pause of the whole machine, none hangs."""
LOST_TIMEOUT_S = 2.0
GIVEN_UP_TIMEOUT_S = 60.0
"""Without any process of a model's workers. TorchServe's own retries come more often in the first two minutes."""
WORKER_GIVEN_UP_TIMEOUT_S = 600.0
"""Without a process of one worker, while others of its model run. TorchServe's own pauses are at most 144 s."""
INITIAL_REVIVAL_PAUSE_S = 30.0
MAX_REVIVAL_PAUSE_S = 600.0

LogFunction = Callable[[str], None]


class HangingWorkerKiller:
    """Kills workers that hang, so that TorchServe starts others. `kill` sends SIGKILL, False when it could not."""

    def __init__(self, kill: Callable[[int], bool], metrics: Metrics, info: LogFunction) -> None:
        self._kill = kill
        self._metrics = metrics
        self._info = info
        self._since: dict[int, float] = {}
        self._killed: dict[int, float] = {}

    def step(self, versions: Sequence[Version], now: float) -> None:
        pids = {worker.pid for version in versions for worker in version.model.workers}
        self._killed = {pid: at for pid, at in self._killed.items() if pid in pids}
        hanging: dict[int, float] = {}
        for version in versions:
            for worker in version.model.workers:
                hang = _find_hang(worker, version, now)
                if hang is None:
                    continue
                reason, limit, description = hang
                hanging[worker.pid] = since = self._since.get(worker.pid, now)
                if now - since >= limit and worker.pid not in self._killed and self._kill(worker.pid):
                    self._killed[worker.pid] = now
                    self._metrics.kills.labels(version.model.name, reason).inc()
                    self._info(f"{version.model.name}: killed worker {worker.pid}, which {description}")
        self._since = hanging


def _find_hang(worker: Worker, version: Version, now: float) -> tuple[str, float, str] | None:
    """The reason, for how long it has to be observed, and words for the log; None for a worker that runs.

    A worker that still loads is TorchServe's business, by startupTimeout.
    """
    activity = worker.activity
    if not worker.ready:
        return None
    if worker.stopped:
        return "suspended", STOPPED_LIMIT_S, "was suspended by a signal"
    if activity is None:
        return None
    heartbeat_age_s = now - activity.heartbeat
    if heartbeat_age_s > HEARTBEAT_KILL_S:
        return "unresponsive", MIN_HANG_S, f"had shown no heartbeat for {heartbeat_age_s:.0f} s"
    no_progress_s = now - activity.progress
    if activity.is_computing and no_progress_s > version.model.response_timeout + STALL_SLACK_S:
        return "stuck", MIN_HANG_S, f"had made no progress for {no_progress_s:.0f} s"
    if version.queue_stalled_s > 2 * QUEUE_STALL_LIMIT_S:
        return (
            "starved",
            MIN_HANG_S,
            f"had got no request for {version.queue_stalled_s:.0f} s though some wait",
        )
    return None


@dataclass
class _Revival:
    """A model without any worker process: since when, and when it may be started again."""

    since: float
    tries: int = 0
    next_at: float = 0.0


class WorkerReplacer:
    """Through the management API: replaces workers that TorchServe believes to be alive, revives given-up models.

    Call `step` after each description of the models, in the thread that may wait for the management API.
    """

    def __init__(self, endpoints: Endpoints, metrics: Metrics, info: LogFunction) -> None:
        self._endpoints = endpoints
        self._metrics = metrics
        self._info = info
        self._lost_since: dict[Key, float] = {}
        self._lost_pids: dict[Key, frozenset[int]] = {}
        self._intended: dict[Key, tuple[int, int]] = {}
        self._revivals: dict[Key, _Revival] = {}
        self._reviving: set[Key] = set()
        self._no_process_since: dict[tuple[Key, str], float] = {}

    def min_workers(self, model: Model) -> int:
        """What the model is meant to have, while TorchServe is told other numbers."""
        intended = self._intended.get((model.name, model.version))
        return intended[0] if intended else model.min_workers

    @property
    def pending(self) -> frozenset[Key]:
        """Versions whose worker counts are not yet what they are meant to be."""
        return frozenset(self._intended)

    def step(self, models: Iterable[Model], unknown: Collection[str] = ()) -> None:
        """Repair these models, but not those in `unknown`: their descriptions are old, and may be wrong by now.

        The rest of them waits for the next step when the management API does not answer.
        """
        models = list(models)
        keys = {(model.name, model.version) for model in models}
        for records in (self._lost_since, self._lost_pids, self._intended, self._revivals):
            for key in records.keys() - keys:
                del records[key]
        self._reviving &= keys
        for model in self._mark_given_up_workers(models):
            if model.name in unknown:
                continue
            try:
                self._replace_lost(model)
                self._revive(model)
            except client.TransportError as error:
                self._info(f"{model.name} {model.version}: could not be repaired, trying again: {error}")
                return

    def _mark_given_up_workers(self, models: Sequence[Model]) -> list[Model]:
        """Workers that TorchServe has given up beside others that run are replaced like lost ones."""
        now = time.monotonic()
        self._no_process_since = {
            key: self._no_process_since.get(key, now)
            for model in models
            for worker in model.workers
            for key in [((model.name, model.version), worker.id)]
            if not worker.alive
        }

        def with_status(model: Model, worker: Worker) -> Worker:
            since = self._no_process_since.get(((model.name, model.version), worker.id), now)
            return replace(worker, status="READY") if now - since > WORKER_GIVEN_UP_TIMEOUT_S else worker

        return [
            replace(model, workers=tuple(with_status(model, worker) for worker in model.workers))
            if any(worker.ready for worker in model.workers)
            else model
            for model in models
        ]

    def _replace_lost(self, model: Model) -> None:
        """Those lost for good, not just between their end and TorchServe's notice of it; until it has succeeded."""
        key = (model.name, model.version)
        if key in self._reviving:
            return
        worker_count = self.min_workers(model)
        missing = worker_count - (len(model.workers) - len(model.lost))
        if not (model.lost and missing > 0) and key not in self._intended:
            self._lost_since.pop(key, None)
            return
        pids = frozenset(worker.pid for worker in model.lost)
        if key not in self._intended and not pids & self._lost_pids.get(key, pids):
            self._lost_since.pop(key, None)  # others than before: workers come and go, as in several scalings
        self._lost_pids[key] = pids
        if time.monotonic() - self._lost_since.setdefault(key, time.monotonic()) <= LOST_TIMEOUT_S:
            return
        if key in self._intended and missing <= 0 and model.min_workers == worker_count:
            del self._intended[key], self._lost_since[key]
            return
        if key not in self._intended:
            lost_pids = ", ".join(str(worker.pid) for worker in model.lost)
            self._info(
                f"{model.name}: worker {lost_pids} is gone, and TorchServe has not noticed; replacing it"
            )
            self._intended[key] = worker_count, model.max_workers
            self._metrics.replacements.labels(model.name).inc()
        try:
            replace_lost(self._endpoints, model, worker_count)
        except client.TransportError:
            raise
        except client.ServeError as error:
            self._info(f"{model.name}: its worker could not be replaced, trying again: {error}")

    def _revive(self, model: Model) -> None:
        """A model whose workers TorchServe no longer starts: scaling it to 0 and back makes it begin again."""
        key = (model.name, model.version)
        now = time.monotonic()
        if key in self._reviving:
            self._restore(model)
            return
        if not model.min_workers or any(worker.ready for worker in model.workers):
            self._revivals.pop(key, None)
            return
        revival = self._revivals.setdefault(key, _Revival(now))
        if any(worker.alive for worker in model.workers) or key in self._intended:
            revival.since = now
            return
        if now - revival.since < GIVEN_UP_TIMEOUT_S or now < revival.next_at:
            return
        pause = min(MAX_REVIVAL_PAUSE_S, INITIAL_REVIVAL_PAUSE_S * 2**revival.tries)
        revival.tries += 1
        revival.since, revival.next_at = now, now + pause
        self._info(
            f"{model.name} {model.version}: no worker has been running for {GIVEN_UP_TIMEOUT_S:.0f} s; starting "
            f"them again (attempt {revival.tries})"
        )
        self._metrics.revivals.labels(model.name).inc()
        self._intended[key] = model.min_workers, model.max_workers
        self._reviving.add(key)
        self._restore(model)

    def _restore(self, model: Model) -> None:
        """Repeated until TorchServe has been told the old numbers again."""
        key = (model.name, model.version)
        min_workers, max_workers = self._intended[key]
        try:
            with Client(endpoints=self._endpoints, timeout=2.0, retries=0) as connection:
                if not any(worker.alive for worker in model.workers):
                    connection.scale(model.name, 0, 0, model.version, synchronous=False)
                connection.scale(model.name, min_workers, max_workers, model.version, synchronous=False)
        except client.TransportError:
            raise
        except client.ServeError as error:
            self._info(f"{model.name} {model.version}: could not be started again, trying again: {error}")
            return
        self._reviving.discard(key)
        del self._intended[key]
