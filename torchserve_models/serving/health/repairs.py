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
OBSERVED_S = 2.0
"""A worker is killed only when it was seen to hang for so long: after a pause of the whole machine, none hangs."""
LOST_AFTER_S = 2.0
GIVEN_UP_AFTER_S = 60.0
"""Without any process of a model's workers. TorchServe's own retries come more often in the first two minutes."""
WORKER_GIVEN_UP_AFTER_S = 600.0
"""Without a process of one worker, while others of its model run. TorchServe's own pauses are at most 144 s."""
FIRST_REVIVAL_PAUSE_S = 30.0
LONGEST_REVIVAL_PAUSE_S = 600.0

Say = Callable[[str], None]


class HangingWorkers:
    """Kills workers that hang, so that TorchServe starts others. `kill` sends SIGKILL, False when it could not."""

    def __init__(self, kill: Callable[[int], bool], metrics: Metrics, say: Say) -> None:
        self._kill = kill
        self._metrics = metrics
        self._say = say
        self._since: dict[int, float] = {}
        self._killed: dict[int, float] = {}

    def step(self, versions: Sequence[Version], now: float) -> None:
        pids = {worker.pid for version in versions for worker in version.model.workers}
        self._killed = {pid: at for pid, at in self._killed.items() if pid in pids}
        hanging: dict[int, float] = {}
        for version in versions:
            for worker in version.model.workers:
                found = _hang(worker, version, now)
                if found is None:
                    continue
                reason, limit, words = found
                hanging[worker.pid] = since = self._since.get(worker.pid, now)
                if now - since >= limit and worker.pid not in self._killed and self._kill(worker.pid):
                    self._killed[worker.pid] = now
                    self._metrics.kills.labels(version.model.name, reason).inc()
                    self._say(f"{version.model.name}: killed worker {worker.pid}, which {words}")
        self._since = hanging


def _hang(worker: Worker, version: Version, now: float) -> tuple[str, float, str] | None:
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
    silent = now - activity.heartbeat
    if silent > HEARTBEAT_KILL_S:
        return "unresponsive", OBSERVED_S, f"had shown no heartbeat for {silent:.0f} s"
    still = now - activity.progress
    if activity.is_computing and still > version.model.response_timeout + STALL_SLACK_S:
        return "stuck", OBSERVED_S, f"had made no progress for {still:.0f} s"
    if version.queue_stalled_s > 2 * QUEUE_STALL_LIMIT_S:
        return (
            "starved",
            OBSERVED_S,
            f"had got no request for {version.queue_stalled_s:.0f} s though some wait",
        )
    return None


@dataclass
class _Revival:
    """A model without any worker process: since when, and when it may be started again."""

    since: float
    tries: int = 0
    next_at: float = 0.0


class Replacements:
    """Through the management API: replaces workers that TorchServe believes to be alive, revives given-up models.

    Call `step` after each description of the models, in the thread that may wait for the management API.
    """

    def __init__(self, endpoints: Endpoints, metrics: Metrics, say: Say) -> None:
        self._endpoints = endpoints
        self._metrics = metrics
        self._say = say
        self._lost_since: dict[Key, float] = {}
        self._lost_pids: dict[Key, frozenset[int]] = {}
        self._intended: dict[Key, tuple[int, int]] = {}
        self._revivals: dict[Key, _Revival] = {}
        self._reviving: set[Key] = set()
        self._without_process: dict[tuple[Key, str], float] = {}

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
        for model in self._as_lost(models):
            if model.name in unknown:
                continue
            try:
                self._replace_lost(model)
                self._revive(model)
            except client.TransportError as error:
                self._say(f"{model.name} {model.version}: could not be repaired, trying again: {error}")
                return

    def _as_lost(self, models: Sequence[Model]) -> list[Model]:
        """Workers that TorchServe has given up beside others that run are replaced like lost ones."""
        now = time.monotonic()
        self._without_process = {
            key: self._without_process.get(key, now)
            for model in models
            for worker in model.workers
            for key in [((model.name, model.version), worker.id)]
            if not worker.alive
        }

        def seen(model: Model, worker: Worker) -> Worker:
            since = self._without_process.get(((model.name, model.version), worker.id), now)
            return replace(worker, status="READY") if now - since > WORKER_GIVEN_UP_AFTER_S else worker

        return [
            replace(model, workers=tuple(seen(model, worker) for worker in model.workers))
            if any(worker.ready for worker in model.workers)
            else model
            for model in models
        ]

    def _replace_lost(self, model: Model) -> None:
        """Those lost for good, not just between their end and TorchServe's notice of it; until it has succeeded."""
        key = (model.name, model.version)
        if key in self._reviving:
            return
        wanted = self.min_workers(model)
        missing = wanted - (len(model.workers) - len(model.lost))
        if not (model.lost and missing > 0) and key not in self._intended:
            self._lost_since.pop(key, None)
            return
        pids = frozenset(worker.pid for worker in model.lost)
        if key not in self._intended and not pids & self._lost_pids.get(key, pids):
            self._lost_since.pop(key, None)  # others than before: workers come and go, as in several scalings
        self._lost_pids[key] = pids
        if time.monotonic() - self._lost_since.setdefault(key, time.monotonic()) <= LOST_AFTER_S:
            return
        if key in self._intended and missing <= 0 and model.min_workers == wanted:
            del self._intended[key], self._lost_since[key]
            return
        if key not in self._intended:
            gone = ", ".join(str(worker.pid) for worker in model.lost)
            self._say(f"{model.name}: worker {gone} is gone, and TorchServe has not noticed; replacing it")
            self._intended[key] = wanted, model.max_workers
            self._metrics.replacements.labels(model.name).inc()
        try:
            replace_lost(self._endpoints, model, wanted)
        except client.TransportError:
            raise
        except client.ServeError as error:
            self._say(f"{model.name}: its worker could not be replaced, trying again: {error}")

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
        if now - revival.since < GIVEN_UP_AFTER_S or now < revival.next_at:
            return
        pause = min(LONGEST_REVIVAL_PAUSE_S, FIRST_REVIVAL_PAUSE_S * 2**revival.tries)
        revival.tries += 1
        revival.since, revival.next_at = now, now + pause
        self._say(
            f"{model.name} {model.version}: no worker has been running for {GIVEN_UP_AFTER_S:.0f} s; starting "
            f"them again (attempt {revival.tries})"
        )
        self._metrics.revivals.labels(model.name).inc()
        self._intended[key] = model.min_workers, model.max_workers
        self._reviving.add(key)
        self._restore(model)

    def _restore(self, model: Model) -> None:
        """Repeated until TorchServe has been told the old numbers again."""
        key = (model.name, model.version)
        least, most = self._intended[key]
        try:
            with Client(endpoints=self._endpoints, timeout=2.0, retries=0) as connection:
                if not any(worker.alive for worker in model.workers):
                    connection.scale(model.name, 0, 0, model.version, synchronous=False)
                connection.scale(model.name, least, most, model.version, synchronous=False)
        except client.TransportError:
            raise
        except client.ServeError as error:
            self._say(f"{model.name} {model.version}: could not be started again, trying again: {error}")
            return
        self._reviving.discard(key)
        del self._intended[key]
