"""Watch a running server: observe its workers, decide about readiness, and repair what TorchServe does not.

Two threads. The poller's asks the management API, and may have to wait for it. The other looks at processes and
activity files several times a second and publishes what it sees as a Snapshot, which probes are answered from.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from urllib.parse import urlsplit

from handlers.core.holding import ask_to_hold
from torchserve_models.serving.health import model_probe, readiness
from torchserve_models.serving.health.archive_origin import Origin
from torchserve_models.serving.health.http_server import HealthServer
from torchserve_models.serving.health.metrics import Metrics
from torchserve_models.serving.health.model_poller import ModelPoller, Poll
from torchserve_models.serving.health.model_states import Key, Model
from torchserve_models.serving.health.probe_scheduler import ProbeScheduler
from torchserve_models.serving.health.processes import Processes, QueueWatchdog
from torchserve_models.serving.health.readiness import Phase, Snapshot, Version
from torchserve_models.serving.health.registered_models import RegisteredModels
from torchserve_models.serving.health.repairs import HangingWorkerKiller, WorkerReplacer
from torchserve_models.serving.metrics import WATCH_ERRORS
from torchserve_models.serving.run_config.run_plan import Plan

OBSERVE_INTERVAL_S = 0.25
CONFIRM_LIMIT_S = 1.0
"""Time after a worker's end in which TorchServe is asked whether it was intended, such as a scale-down."""

LogFunction = Callable[[str], None]


class HealthMonitor:
    """Monitor of one server. Call `start` before the front end starts, `serve` once it serves, and always `close`.

    Attributes:
        phase: Set it to "restarting" or "stopping"; `serve` sets it to "running". Repairs and questions happen only
            while it is "running". Safe to set in a signal handler: after "stopping" it stays so.
        metrics: What GET /metrics answers.
        missing: Versions that a restart of the front end could not load again, with the reason.
        lost_defaults: Default versions, by model, that a restart could not bring back as such.
    """

    def __init__(self, plan: Plan, poller: ModelPoller, info: LogFunction) -> None:
        """Take over `poller`: it is started and closed with the monitor."""
        self._phase: Phase = "starting"
        self._is_stopping = False
        self.missing: Mapping[Key, str] = {}
        self.lost_defaults: Mapping[str, str] = {}
        self._plan = plan
        self._poller = poller
        self._info = info
        self._known = RegisteredModels(plan.store, self._log)
        self._serving_since = 0.0
        self._processes = Processes(plan.run.activity)
        self._queues = QueueWatchdog()
        self._joined: dict[str, float] = {}
        self._ended: dict[int, float] = {}
        self._was_ready: set[str] = set()
        self._snapshot = Snapshot(time.monotonic(), time.time())
        self.metrics = Metrics(lambda: (self.snapshot(), time.monotonic()))
        self._probes = ProbeScheduler(
            self._start_probe, lambda model, result: self.metrics.questions.labels(model, result).inc()
        )
        self._hanging = HangingWorkerKiller(self._processes.kill, self.metrics, self._log)
        self._replacements = WorkerReplacer(plan.endpoints, self.metrics, self._log)
        self._last_error = ""
        self._closing = threading.Event()
        self._observing = threading.Lock()
        self._thread = threading.Thread(target=self._observe_forever, name="health-observe", daemon=True)
        parts = urlsplit(plan.settings.get("health_address", plan.endpoints.health))
        self._server = HealthServer(parts.hostname or "127.0.0.1", parts.port or 8083, self)

    @property
    def phase(self) -> Phase:
        return "stopping" if self._is_stopping else self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        if phase == "stopping":
            self._is_stopping = True
        else:
            self._phase = phase

    def start(self) -> None:
        """Start the monitor. Raises OSError if the health port cannot be bound."""
        self._server.start()
        self._poller.start(self._take, self._is_calm)
        self._thread.start()

    def serve(self, models: Sequence[Model]) -> None:
        """Begin monitoring a front end whose `models` have each answered a probe.

        None of them after a restart: then what was known stays, with workers that have died, until the next poll.
        """
        now = time.monotonic()
        self._poller.note_answer()
        self._serving_since = now
        if models:
            self._known.begin(models, now, time.time())
        self._poller.ask_soon()
        self._was_ready |= {model.name for model in models if model.default}
        self.phase = "running"
        self._observe()

    def close(self) -> None:
        """Stop observing and answering probes. May be called twice."""
        self._closing.set()
        self._server.close()
        self._poller.close()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def problem(self) -> str | None:
        """Return why the server is not ready; None if it is."""
        return readiness.server_problem(self.snapshot(), time.monotonic())

    @property
    def front_end_silent_s(self) -> float:
        """Seconds since the management API last answered."""
        return time.monotonic() - self._poller.answered_at

    @property
    def recorded(self) -> float:
        """Wall time of the state that a restart of the front end would restore."""
        return self._poller.recorded

    @property
    def stalled_s(self) -> float:
        """Seconds since the last observation; well below one while the monitor works."""
        return time.monotonic() - self._snapshot.at

    def snapshot(self) -> Snapshot:
        """Return the latest observations with the current phase and the front end's last answer."""
        return replace(
            self._snapshot,
            phase=self.phase,
            front_end_answered=self._poller.answered_at,
            missing=dict(self.missing),
            lost_defaults=dict(self.lost_defaults),
        )

    def refreshed(self) -> Snapshot:
        """Return a snapshot with the workers' current activity, reliable enough to decide that a model is idle."""
        snapshot = self.snapshot()
        with self._observing:
            observed = self._processes.observe(version.model for version in snapshot.versions)
        versions = zip(snapshot.versions, observed, strict=True)
        return replace(snapshot, versions=tuple(replace(version, model=model) for version, model in versions))

    def hold(self, pid: int) -> bool:
        """Make the worker hold its next describe call (handlers/core/holding.py); False if it cannot."""
        workers = [worker for version in self._snapshot.versions for worker in version.model.workers]
        if not any(worker.pid == pid and worker.activity for worker in workers):
            return False
        try:
            ask_to_hold(self._plan.run.activity, pid)
        except OSError:  # a full disk
            return False
        return True

    def _take(self, poll: Poll) -> None:
        """Process a poll in the poller's thread."""
        if poll.survey is None:
            return
        self._known.update(poll)
        if self.phase == "running" and poll.started >= self._serving_since:
            self._forget_removed(self._known.current.names | poll.survey.unreached.keys())
            unknown = poll.survey.undescribed.keys() | poll.survey.unreached.keys()
            self._replacements.step(self._known.current.models, unknown)
            self._poller.repairing = self._replacements.pending

    def _is_calm(self) -> bool:
        snapshot, now = self.snapshot(), time.monotonic()
        return self.phase == "running" and readiness.server_problem(snapshot, now, strict=True) is None

    def _forget_removed(self, names: Set[str]) -> None:
        """Forget removed models; one that is registered again must become ready first."""
        with self._observing:
            self._was_ready &= names
            self._joined = {name: at for name, at in self._joined.items() if name in names}
        self.metrics.keep_models(names)

    def _observe_forever(self) -> None:
        while not self._closing.wait(OBSERVE_INTERVAL_S):
            try:
                versions = self._observe()
                if self.phase == "running":
                    now = time.monotonic()
                    self._hanging.step(versions, now)
                    self._probes.step(versions)
            except Exception as error:  # what watches must go on
                WATCH_ERRORS.inc()
                if repr(error) != self._last_error:
                    self._last_error = repr(error)
                    self._log(f"the workers could not be observed: {error!r}")
                self._closing.wait(1.0)

    def _observe(self) -> tuple[Version, ...]:
        """Observe the workers and publish a new snapshot."""
        with self._observing:
            description = self._known.current
            models = self._processes.observe(description.models)
            now = time.monotonic()
            self._note_ends(models, now)
            self._queues.keep({(model.name, model.version) for model in models})
            described_at = description.described_at
            versions = tuple(self._version(model, now - described_at[model.name]) for model in models)
            for version in versions:
                self._note_service(version, now)
            versions = tuple(
                replace(
                    version, in_service=self._in_service(version.model, described_at[version.model.name], now)
                )
                for version in versions
            )
            self._snapshot = Snapshot(
                now,
                time.time(),
                self.phase,
                versions,
                description.undescribed,
                self._poller.answered_at,
                description.wall_time,
            )
        return versions

    def _version(self, model: Model, described_s: float) -> Version:
        key = (model.name, model.version)
        version = Version(
            model=model,
            min_workers=self._replacements.min_workers(model),
            needs_answer=self._probes.needs_answer(key),
            probe_failure=self._probes.problem(key),
            queue_stalled_s=self._queues.stalled_s(model, described_s),
            origin=self._known.origin(model) or Origin(),
        )
        return replace(version, trusted_pids=self._probes.trust_workers(version, time.monotonic()))

    def _note_service(self, version: Version, now: float) -> None:
        """Mark the model as in service from its first readiness; scaling it to 0 resets that."""
        name = version.model.name
        if not version.model.default:
            return
        if not version.min_workers:
            self._was_ready.discard(name)
            self._joined.pop(name, None)
            return
        self._joined.setdefault(name, now)
        if readiness.version_problem(version, now) is None:
            self._was_ready.add(name)

    def _note_ends(self, models: Sequence[Model], now: float) -> None:
        """When a worker's process has ended, poll TorchServe at once to see whether that was intended."""
        usable = {
            worker.pid
            for version in self._snapshot.versions
            for worker in readiness.usable_workers(version, self._snapshot.at)
        }
        # One that could not answer before its end was not scaled down: its model stays not ready.
        end_times = {
            worker.pid: self._ended.get(worker.pid, now if worker.pid in usable else 0.0)
            for model in models
            for worker in model.workers
            if worker.pid > 0 and not worker.alive
        }
        if end_times.keys() - self._ended.keys():
            self._poller.ask_soon()
        self._ended = end_times

    def _in_service(self, model: Model, described_at: float, now: float) -> bool:
        """Return whether the model counts, also if it is overdue; not while it may be being scaled down."""
        for worker in model.workers:
            end_times = self._ended.get(worker.pid, 0.0)
            if self._serving_since <= described_at <= end_times and now - end_times < CONFIRM_LIMIT_S:
                return False
        limit = model.startup_timeout + readiness.REGISTRATION_SLACK_S
        return model.name in self._was_ready or now - self._joined.get(model.name, now) > limit

    def _start_probe(self, model: Model) -> model_probe.Probe:
        timeout = float(model.response_timeout or 60)
        known = self._known.origin(model)
        return model_probe.Probe(self._plan.endpoints, self._plan.store, model, timeout, known)

    def _log(self, message: str) -> None:
        """Log a message; a failing log does not stop the monitor."""
        with contextlib.suppress(Exception):
            self._info(message)
