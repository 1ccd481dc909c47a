"""Repair workers: kill hung ones, replace lost ones, and revive models that TorchServe has given up."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from torchserve_models import client
from torchserve_models.client import Client, Endpoints
from torchserve_models.serving.health.metrics import Metrics
from torchserve_models.serving.health.model_states import Key, Model, Worker, replace_lost
from torchserve_models.serving.health.readiness import QUEUE_STALL_LIMIT_S, Version

STOPPED_LIMIT_S = 3.0
"""Time after which a suspended worker is killed."""
HEARTBEAT_KILL_S = 8.0
"""Heartbeat age at which a worker is killed; see HEARTBEAT_LIMIT_S for readiness."""
STALL_SLACK_S = 5.0
"""Added to responseTimeout, at which TorchServe itself kills the worker."""
MIN_HANG_S = 2.0
"""Minimum observed hang before a worker is killed, so that a pause of the whole machine kills none."""
LOST_TIMEOUT_S = 2.0
GIVEN_UP_TIMEOUT_S = 60.0
"""Time without any worker process of a model. TorchServe itself retries more often in the first two minutes."""
WORKER_GIVEN_UP_TIMEOUT_S = 600.0
"""Time without the process of one worker while others run. TorchServe's own pauses are at most 144 s."""
INITIAL_REVIVAL_PAUSE_S = 30.0
MAX_REVIVAL_PAUSE_S = 600.0

LogFunction = Callable[[str], None]


class HangingWorkerKiller:
    """Kill hung workers, so that TorchServe replaces them. `kill` sends SIGKILL and returns whether it succeeded."""

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
    """Return (reason, minimum observation time, log text) for a hung worker; None for one that runs.

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
    """A model without any worker process: since when, and the earliest time of the next restart."""

    since: float
    tries: int = 0
    next_at: float = 0.0


class WorkerReplacer:
    """Replace lost workers and revive given-up models through the management API.

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
        """Return the intended minimum number of workers, also while a repair scales the model."""
        intended = self._intended.get((model.name, model.version))
        return intended[0] if intended else model.min_workers

    @property
    def pending(self) -> frozenset[Key]:
        """Versions whose worker counts a repair has not yet restored."""
        return frozenset(self._intended)

    def step(self, models: Iterable[Model], unknown: Collection[str] = ()) -> None:
        """Repair these models, except those in `unknown`, whose descriptions are outdated.

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
        """Mark workers that TorchServe has given up, while others of their model run, as lost."""
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
        """Replace permanently lost workers, not those whose end TorchServe is about to notice."""
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
            self._info(f"{model.name}: worker {lost_pids} has died without TorchServe noticing; replacing it")
            self._intended[key] = worker_count, model.max_workers
            self._metrics.replacements.labels(model.name).inc()
        try:
            replace_lost(self._endpoints, model, worker_count)
        except client.TransportError:
            raise
        except client.TorchServeError as error:
            self._info(f"{model.name}: its worker could not be replaced, trying again: {error}")

    def _revive(self, model: Model) -> None:
        """Revive a model whose workers TorchServe no longer starts by scaling it to 0 and back."""
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
        """Restore the worker counts; repeated until it succeeds."""
        key = (model.name, model.version)
        min_workers, max_workers = self._intended[key]
        try:
            with Client(endpoints=self._endpoints, timeout=2.0, retries=0) as connection:
                if not any(worker.alive for worker in model.workers):
                    connection.scale(model.name, 0, 0, model.version, synchronous=False)
                connection.scale(model.name, min_workers, max_workers, model.version, synchronous=False)
        except client.TransportError:
            raise
        except client.TorchServeError as error:
            self._info(f"{model.name} {model.version}: could not be started again, trying again: {error}")
            return
        self._reviving.discard(key)
        del self._intended[key]
