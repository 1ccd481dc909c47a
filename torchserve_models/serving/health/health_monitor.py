"""Monitor a running server: observe its workers, determine readiness, and start repairs.

Two threads do the work. The poller's thread queries the management API and may block on it. The observer thread reads
process states and activity files several times a second and publishes a ServerObservation for readiness probes.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from urllib.parse import urlsplit

from handlers.core.worker_hold import request_hold
from torchserve_models.client.readiness_report import Key
from torchserve_models.serving.health import model_probe
from torchserve_models.serving.health.archive_origin import ArchiveOrigin
from torchserve_models.serving.health.http_server import HealthServer
from torchserve_models.serving.health.in_service import InServiceModels
from torchserve_models.serving.health.metrics import SupervisorMetrics
from torchserve_models.serving.health.model_poller import ModelPoller, PollResult
from torchserve_models.serving.health.model_states import ObservedVersion
from torchserve_models.serving.health.observations import Phase, ServerObservation, Version
from torchserve_models.serving.health.probe_scheduler import ProbeScheduler
from torchserve_models.serving.health.processes import QueueWatchdog, WorkerProcesses
from torchserve_models.serving.health.registered_models import RegisteredModels
from torchserve_models.serving.health.worker_recovery import HangingWorkerKiller, WorkerReplacer
from torchserve_models.serving.metrics import WATCH_ERRORS
from torchserve_models.serving.run_config.run_plan import RunPlan

OBSERVE_INTERVAL_S = 0.25

LogFunction = Callable[[str], None]


class HealthMonitor:
    """Monitor of one server. Call `start` before the front end starts, `serve` when it is ready, and always `close`.

    Attributes:
        phase: Set it to "restarting" or "stopping"; `serve` sets it to "running". Repairs and probes run only while
            the phase is "running". A signal handler may set it; "stopping" is final.
        metrics: Metrics for GET /metrics.
        missing: Versions that a restart of the front end could not reload, with the reason.
        lost_defaults: Default version of each model whose default version a restart could not restore.
    """

    def __init__(self, plan: RunPlan, poller: ModelPoller, info: LogFunction) -> None:
        """Create the monitor; it starts and closes `poller`."""
        self._phase: Phase = "starting"
        self._is_stopping = False
        self.missing: Mapping[Key, str] = {}
        self.lost_defaults: Mapping[str, str] = {}
        self._plan = plan
        self._poller = poller
        self._info = info
        self._known = RegisteredModels(plan.store, self._log)
        self._serving_since = 0.0
        self._processes = WorkerProcesses(plan.run.activity)
        self._queues = QueueWatchdog()
        self._in_service = InServiceModels()
        self._snapshot = ServerObservation(time.monotonic(), time.time())
        self.metrics = SupervisorMetrics(lambda: (self.snapshot(), time.monotonic()))
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

    def serve(self, models: Sequence[ObservedVersion]) -> None:
        """Start monitoring a front end that is ready.

        Args:
            models: Models that have each answered a probe. Empty after a restart: the previous models stay, with dead
                workers, until the next poll.
        """
        now = time.monotonic()
        self._poller.note_answer()
        self._serving_since = now
        if models:
            self._known.begin(models, now, time.time())
        self._poller.ask_soon()
        self._in_service.add(model.name for model in models if model.default)
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
        """Return why the server is not ready; None if it is ready."""
        return self.snapshot().report(time.monotonic()).problem()

    @property
    def front_end_silent_s(self) -> float:
        """Seconds since the management API last answered."""
        return time.monotonic() - self._poller.answered_at

    @property
    def recorded(self) -> float:
        """Wall time of the snapshot that a restart of the front end would restore."""
        return self._poller.recorded

    @property
    def stalled_s(self) -> float:
        """Seconds since the last observation; well below 1 while the monitor works."""
        return time.monotonic() - self._snapshot.at

    def snapshot(self) -> ServerObservation:
        """Return the latest observations with the current phase and the front end's last answer."""
        return replace(
            self._snapshot,
            phase=self.phase,
            front_end_answered=self._poller.answered_at,
            missing=dict(self.missing),
            lost_defaults=dict(self.lost_defaults),
        )

    def refreshed(self) -> ServerObservation:
        """Return a snapshot after reading the workers' activity again, so that an idle model is really idle."""
        snapshot = self.snapshot()
        with self._observing:
            observed = self._processes.observe(version.model for version in snapshot.versions)
        versions = zip(snapshot.versions, observed, strict=True)
        return replace(snapshot, versions=tuple(replace(version, model=model) for version, model in versions))

    def hold(self, pid: int) -> bool:
        """Make the worker hold its next describe call (handlers/core/worker_hold.py).

        Returns False if no worker with this process id reports its activity, or the request cannot be written.
        """
        workers = [worker for version in self._snapshot.versions for worker in version.model.workers]
        if not any(worker.pid == pid and worker.activity for worker in workers):
            return False
        try:
            request_hold(self._plan.run.activity, pid)
        except OSError:  # a full disk
            return False
        return True

    def _take(self, poll: PollResult) -> None:
        """Process the result of a poll. Called in the poller's thread."""
        if poll.server_description is None:
            return
        self._known.update(poll)
        if self.phase == "running" and poll.started >= self._serving_since:
            self._forget_removed(self._known.current.names | poll.server_description.unreached.keys())
            unknown = poll.server_description.undescribed.keys() | poll.server_description.unreached.keys()
            self._replacements.step(self._known.current.models, unknown)
            self._poller.repairing = self._replacements.pending

    def _is_calm(self) -> bool:
        report = self.snapshot().report(time.monotonic())
        return self.phase == "running" and report.problem(strict=True) is None

    def _forget_removed(self, names: Set[str]) -> None:
        """Forget removed models. A model that is registered again must first become ready to be in service."""
        with self._observing:
            self._in_service.keep_only(names)
        self.metrics.keep_models(names)

    def _observe_forever(self) -> None:
        while not self._closing.wait(OBSERVE_INTERVAL_S):
            try:
                versions = self._observe()
                if self.phase == "running":
                    now = time.monotonic()
                    self._hanging.step(versions, now)
                    self._probes.step(versions)
            except Exception as error:  # monitoring must continue
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
            if self._in_service.note_ended_workers(self._snapshot, models, now):
                self._poller.ask_soon()  # to detect a scale-down
            self._queues.keep_only({(model.name, model.version) for model in models})
            described_at = description.described_at
            versions = tuple(self._version(model, now - described_at[model.name]) for model in models)
            versions = self._in_service.mark(versions, described_at, self._serving_since, now)
            self._snapshot = ServerObservation(
                now,
                time.time(),
                self.phase,
                versions,
                description.undescribed,
                self._poller.answered_at,
                description.wall_time,
            )
        return versions

    def _version(self, model: ObservedVersion, described_s: float) -> Version:
        key = (model.name, model.version)
        version = Version(
            model=model,
            min_workers=self._replacements.min_workers(model),
            needs_answer=self._probes.needs_answer(key),
            probe_failure=self._probes.problem(key),
            queue_stalled_s=self._queues.stalled_s(model, described_s),
            origin=self._known.origin(model) or ArchiveOrigin(),
        )
        return replace(version, trusted_pids=self._probes.trust_workers(version, time.monotonic()))

    def _start_probe(self, model: ObservedVersion) -> model_probe.ModelProbe:
        timeout = float(model.response_timeout or 60)
        known = self._known.origin(model)
        return model_probe.ModelProbe(self._plan.endpoints, self._plan.store, model, timeout, known)

    def _log(self, message: str) -> None:
        """Log a message; a failing log does not stop the monitor."""
        with contextlib.suppress(Exception):
            self._info(message)
