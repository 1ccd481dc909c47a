"""Repair workers: kill hung ones, replace lost ones, revive models whose workers TorchServe no longer restarts."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from torchserve_models import client
from torchserve_models.client import Client, Endpoints
from torchserve_models.client.readiness import QUEUE_STALL_LIMIT_S
from torchserve_models.client.readiness_report import Key
from torchserve_models.serving.health.metrics import SupervisorMetrics
from torchserve_models.serving.health.model_states import ObservedVersion, ObservedWorker, replace_lost
from torchserve_models.serving.health.observations import Version

STOPPED_LIMIT_S = 3.0
"""Time after which a suspended worker is killed."""
HEARTBEAT_KILL_S = 8.0
"""Heartbeat age at which a worker is killed; see HEARTBEAT_LIMIT_S for readiness."""
STALL_SLACK_S = 5.0
"""Time after responseTimeout until a stuck worker is killed; TorchServe normally kills it at responseTimeout."""
MIN_HANG_S = 2.0
"""Minimum observed hang before a worker is killed, so that a pause of the whole machine kills no worker."""
LOST_TIMEOUT_S = 2.0
GIVEN_UP_TIMEOUT_S = 60.0
"""Time without any worker process until a model is revived. In the first two minutes, TorchServe retries sooner."""
WORKER_GIVEN_UP_TIMEOUT_S = 600.0
"""Time until a worker without process is replaced while others run. TorchServe retries at least every 144 s."""
INITIAL_REVIVAL_PAUSE_S = 30.0
MAX_REVIVAL_PAUSE_S = 600.0

LogFunction = Callable[[str], None]


class HangingWorkerKiller:
    """Killer of hung workers, which TorchServe then replaces. `kill` sends SIGKILL and returns its success."""

    def __init__(self, kill: Callable[[int], bool], metrics: SupervisorMetrics, info: LogFunction) -> None:
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


def _find_hang(worker: ObservedWorker, version: Version, now: float) -> tuple[str, float, str] | None:
    """Return (metric label, minimum observation time in seconds, log text) for a hung worker; otherwise None.

    Workers that are still loading are left to TorchServe (startupTimeout).
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
            f"had received no request for {version.queue_stalled_s:.0f} s although requests were waiting",
        )
    return None


@dataclass
class _Revival:
    """Revival of a model without worker processes: start of the outage, attempts, and time of the next attempt."""

    since: float
    tries: int = 0
    next_at: float = 0.0


class WorkerReplacer:
    """Replacement of lost workers and revival of models without workers, through the management API.

    Call `step` after each poll, in a thread that may block on the management API.
    """

    def __init__(self, endpoints: Endpoints, metrics: SupervisorMetrics, info: LogFunction) -> None:
        self._endpoints = endpoints
        self._metrics = metrics
        self._info = info
        self._lost_since: dict[Key, float] = {}
        self._lost_pids: dict[Key, frozenset[int]] = {}
        self._intended: dict[Key, tuple[int, int]] = {}
        self._revivals: dict[Key, _Revival] = {}
        self._reviving: set[Key] = set()
        self._no_process_since: dict[tuple[Key, str], float] = {}

    def min_workers(self, model: ObservedVersion) -> int:
        """Return the intended minimum number of workers, even while a repair scales the model."""
        intended = self._intended.get((model.name, model.version))
        return intended[0] if intended else model.min_workers

    @property
    def pending(self) -> frozenset[Key]:
        """Versions whose worker counts a repair has not yet restored."""
        return frozenset(self._intended)

    def step(self, models: Iterable[ObservedVersion], unknown: Collection[str] = ()) -> None:
        """Repair the models, except those in `unknown`, whose descriptions are outdated.

        If the management API does not answer, the remaining models wait for the next step.
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
                self._info(f"{model.name} {model.version} could not be repaired, trying again: {error}")
                return

    def _mark_given_up_workers(self, models: Sequence[ObservedVersion]) -> list[ObservedVersion]:
        """Mark workers that TorchServe no longer restarts as lost if other workers of their model run."""
        now = time.monotonic()
        self._no_process_since = {
            key: self._no_process_since.get(key, now)
            for model in models
            for worker in model.workers
            for key in [((model.name, model.version), worker.id)]
            if not worker.alive
        }

        def with_status(model: ObservedVersion, worker: ObservedWorker) -> ObservedWorker:
            since = self._no_process_since.get(((model.name, model.version), worker.id), now)
            return replace(worker, status="READY") if now - since > WORKER_GIVEN_UP_TIMEOUT_S else worker

        return [
            replace(model, workers=tuple(with_status(model, worker) for worker in model.workers))
            if any(worker.ready for worker in model.workers)
            else model
            for model in models
        ]

    def _replace_lost(self, model: ObservedVersion) -> None:
        """Replace workers that stay lost; TorchServe notices most ended workers itself within LOST_TIMEOUT_S."""
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
            self._lost_since.pop(key, None)  # the lost workers have changed, as during successive scalings
        self._lost_pids[key] = pids
        if time.monotonic() - self._lost_since.setdefault(key, time.monotonic()) <= LOST_TIMEOUT_S:
            return
        if key in self._intended and missing <= 0 and model.min_workers == worker_count:
            del self._intended[key], self._lost_since[key]
            return
        if key not in self._intended:
            lost_pids = ", ".join(str(worker.pid) for worker in model.lost)
            self._info(
                f"{model.name}: replacing worker {lost_pids}: its process has ended, which TorchServe missed"
            )
            self._intended[key] = worker_count, model.max_workers
            self._metrics.replacements.labels(model.name).inc()
        try:
            replace_lost(self._endpoints, model, worker_count)
        except client.TransportError:
            raise
        except client.TorchServeError as error:
            self._info(f"{model.name}: a worker could not be replaced, trying again: {error}")

    def _revive(self, model: ObservedVersion) -> None:
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

    def _restore(self, model: ObservedVersion) -> None:
        """Restore the worker counts. `step` repeats this until it succeeds."""
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
            self._info(f"{model.name} {model.version} could not be revived, trying again: {error}")
            return
        self._reviving.discard(key)
        del self._intended[key]
