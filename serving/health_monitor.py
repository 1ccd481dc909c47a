"""Watch a running server: observe its workers, decide about readiness, and repair what TorchServe does not.

Two threads. One asks the management API, and may have to wait for it. The other looks at processes and activity files
several times a second and publishes what it sees as a Snapshot, which probes are answered from.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import client
from client import Client
from handlers.core.holding import ask_to_hold
from serving import canary, health, origin
from serving.health import Phase, Snapshot, Version
from serving.health_metrics import Metrics
from serving.health_observe import Processes, QueueWatch
from serving.health_questions import Questions
from serving.health_repairs import HangingWorkers, Replacements
from serving.health_server import HealthServer
from serving.origin import Origin
from serving.plan import Plan
from serving.readiness import Model, survey

DESCRIBE_INTERVAL_S = 1.0
DESCRIBE_ALARM_INTERVAL_S = 0.5
DESCRIBE_TIMEOUT_S = 2.0
MAX_DESCRIBE_PAUSE_S = 2.0
"""Descriptions that take long, as with workers on GPUs, for each of which TorchServe runs nvidia-smi, are followed by
pauses that are as long, up to this one."""
OBSERVE_INTERVAL_S = 0.25
CONFIRM_LIMIT_S = 1.0
"""Within this time after a worker's end, TorchServe is asked whether it was meant to end, as for a scale-down."""
LOG_UNDESCRIBED_AFTER = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Description:
    """The management API's latest answer; `at`: when it was asked for it, monotonic."""

    models: tuple[Model, ...] = ()
    undescribed: dict[str, str] = field(default_factory=dict)
    at: float = 0.0
    wall_time: float = 0.0


class HealthMonitor:
    """Call `start` before the front end starts, `serve` when it serves, and `close` in any case.

    Attributes:
        phase: Set it to "starting", "restarting" or "stopping"; `serve` sets it to "running". Repairs and questions
            happen only while it is "running". Safe to set in a signal handler.
        metrics: What GET /metrics answers.
        missing: Versions that a restart of the front end could not load again, with the reason.
    """

    def __init__(self, plan: Plan, say: Say) -> None:
        self.phase: Phase = "starting"
        self.missing: Mapping[tuple[str, str], str] = {}
        self._plan = plan
        self._say = say
        self._answered_at = time.monotonic()
        self._description = _Description()
        self._processes = Processes(plan.run.activity)
        self._queues = QueueWatch()
        self._origins: dict[tuple[str, str], Origin] = {}
        self._joined: dict[str, float] = {}
        self._ended: dict[int, float] = {}
        self._was_ready: set[str] = set()
        self._failed_describes: dict[str, int] = {}
        self._snapshot = Snapshot(time.monotonic(), time.time())
        self.metrics = Metrics(lambda: (self.snapshot(), time.monotonic()))
        self._questions = Questions(
            self._ask, lambda model, result: self.metrics.questions.labels(model, result).inc()
        )
        self._hanging = HangingWorkers(self._processes.kill, self.metrics, self._log)
        self._replacements = Replacements(plan.endpoints, self.metrics, self._log)
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._observing = threading.Lock()
        self._threads = [
            threading.Thread(target=self._describe_forever, name="health-describe", daemon=True),
            threading.Thread(target=self._observe_forever, name="health-observe", daemon=True),
        ]
        parts = urlsplit(plan.settings.get("health_address", plan.endpoints.health))
        self._server = HealthServer(parts.hostname or "127.0.0.1", parts.port or 8083, self)

    def start(self) -> None:
        """Raises OSError when the health port cannot be bound."""
        self._server.start()
        for thread in self._threads:
            thread.start()

    def serve(self, models: Sequence[Model]) -> None:
        """The front end is up. Each of these models has answered a question; none of them after a restart."""
        now = time.monotonic()
        self._answered_at = now
        if models:
            self._note_origins(models)
        self._description = _Description(tuple(models), {}, now, time.time())
        self._was_ready |= {model.name for model in models if model.default}
        if self.phase != "stopping":  # asked for meanwhile
            self.phase = "running"
        self._observe()

    def close(self) -> None:
        """Stop watching and answering probes; twice does no harm."""
        self._closing.set()
        self._wake.set()
        self._server.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(2 * DESCRIBE_TIMEOUT_S)

    def problem(self) -> str | None:
        """Why the server is not ready; None when it is."""
        return health.server_problem(self.snapshot(), time.monotonic())

    @property
    def front_end_silent_s(self) -> float:
        """How long ago the management API last answered anything."""
        return time.monotonic() - self._answered_at

    @property
    def stalled_s(self) -> float:
        """How long ago this monitor last observed anything; well below a second when it works."""
        return time.monotonic() - self._snapshot.at

    def snapshot(self) -> Snapshot:
        """The latest observations, with the phase and the front end's last answer as they are now."""
        return replace(
            self._snapshot,
            phase=self.phase,
            front_end_answered=self._answered_at,
            missing=dict(self.missing),
        )

    def refreshed(self) -> Snapshot:
        """The same with the workers' activity as it is now, so that a caller may rely on a model being idle."""
        snapshot = self.snapshot()
        with self._observing:
            observed = self._processes.observe(version.model for version in snapshot.versions)
        versions = zip(snapshot.versions, observed, strict=True)
        return replace(snapshot, versions=tuple(replace(version, model=model) for version, model in versions))

    def hold(self, pid: int) -> bool:
        """Let that worker keep its next describe call (handlers/core/holding.py); False where it cannot."""
        workers = [worker for version in self._snapshot.versions for worker in version.model.workers]
        if not any(worker.pid == pid and worker.activity for worker in workers):
            return False
        try:
            ask_to_hold(self._plan.run.activity, pid)
        except OSError:  # a full disk
            return False
        return True

    def _describe_forever(self) -> None:
        with Client(endpoints=self._plan.endpoints, timeout=DESCRIBE_TIMEOUT_S, retries=0) as connection:
            while not self._closing.is_set():
                start = time.monotonic()
                try:
                    self._describe(connection)
                except client.ServeError:
                    pass  # how long it lasts is what counts: front_end_silent_s
                except Exception as error:
                    self._log(f"the models could not be looked at: {error!r}")
                took = time.monotonic() - start
                calm = self.phase == "running" and self._all_is_well()
                interval = DESCRIBE_INTERVAL_S if calm else DESCRIBE_ALARM_INTERVAL_S
                self._wake.wait(max(interval - took, min(took, MAX_DESCRIBE_PAUSE_S), 0.05))
                self._wake.clear()

    def _describe(self, connection: Client) -> None:
        def answered() -> None:
            self._answered_at = time.monotonic()

        phase, start = self.phase, time.monotonic()
        found = survey(connection, 2 * DESCRIBE_TIMEOUT_S, answered)
        self._note_origins(found.models)
        kept = [model for model in self._description.models if model.name in found.undescribed]
        self._description = _Description((*found.models, *kept), dict(found.undescribed), start, time.time())
        self._note_undescribed(found.undescribed)
        if phase == self.phase == "running":
            self._forget_removed(
                {model.name for model in self._description.models} | found.undescribed.keys()
            )
            self._replacements.step(self._description.models)

    def _forget_removed(self, names: Set[str]) -> None:
        """A model that is registered again has to become ready anew before it counts."""
        self._was_ready &= names
        self._joined = {name: at for name, at in self._joined.items() if name in names}

    def _all_is_well(self) -> bool:
        return health.server_problem(self.snapshot(), time.monotonic(), strict=True) is None

    def _note_origins(self, models: Sequence[Model]) -> None:
        """When a version appears, its archive is still in the store."""
        self._origins = {
            key: self._origins.get(key) or origin.from_archive(self._plan.store, model) or Origin()
            for model in models
            for key in [(model.name, model.version)]
        }

    def _note_undescribed(self, undescribed: Mapping[str, str]) -> None:
        """A model that is just being unregistered is not worth a line."""
        for name in self._failed_describes.keys() - undescribed.keys():
            del self._failed_describes[name]
        for name, reason in undescribed.items():
            self._failed_describes[name] = self._failed_describes.get(name, 0) + 1
            if self._failed_describes[name] == LOG_UNDESCRIBED_AFTER:
                self._log(f"{name}: TorchServe lists this model and cannot describe it: {reason}")

    def _observe_forever(self) -> None:
        while not self._closing.wait(OBSERVE_INTERVAL_S):
            try:
                versions = self._observe()
                if self.phase == "running":
                    now = time.monotonic()
                    self._hanging.step(versions, now)
                    self._questions.step(versions)
            except Exception as error:  # what watches must go on
                self._log(f"the workers could not be looked at: {error!r}")
                self._closing.wait(1.0)

    def _observe(self) -> tuple[Version, ...]:
        """Publish what is true now."""
        with self._observing:
            description = self._description
            models = self._processes.observe(description.models)
            now = time.monotonic()
            self._note_ends(models, now)
            self._queues.keep({(model.name, model.version) for model in models})
            versions = tuple(self._version(model, now - description.at) for model in models)
            for version in versions:
                self._note_service(version, now)
            versions = tuple(
                replace(each, in_service=self._in_service(each.model, description.at, now))
                for each in versions
            )
            self._snapshot = Snapshot(
                now,
                time.time(),
                self.phase,
                versions,
                description.undescribed,
                self._answered_at,
                description.wall_time,
            )
        return versions

    def _version(self, model: Model, described_s: float) -> Version:
        key = (model.name, model.version)
        return Version(
            model=model,
            min_workers=self._replacements.min_workers(model),
            needs_answer=self._questions.needs_answer(key),
            question_problem=self._questions.problem(key),
            queue_stalled_s=self._queues.stalled_s(model, described_s),
            origin=self._origins.get(key, Origin()),
        )

    def _note_service(self, version: Version, now: float) -> None:
        """A model counts from the first time that it is ready; one that is scaled to 0 has to become ready anew."""
        name = version.model.name
        if not version.model.default:
            return
        if not version.min_workers:
            self._was_ready.discard(name)
            self._joined.pop(name, None)
            return
        self._joined.setdefault(name, now)
        if health.version_problem(version, now) is None:
            self._was_ready.add(name)

    def _note_ends(self, models: Sequence[Model], now: float) -> None:
        """When a worker's process has ended, ask TorchServe at once whether it is still meant to be there."""
        usable = {
            worker.pid
            for version in self._snapshot.versions
            for worker in health.usable_workers(version, self._snapshot.at)
        }
        # One that could not answer before its end was not scaled down: its model stays not ready.
        ended = {
            worker.pid: self._ended.get(worker.pid, now if worker.pid in usable else 0.0)
            for model in models
            for worker in model.workers
            if worker.pid > 0 and not worker.alive
        }
        if ended.keys() - self._ended.keys():
            self._wake.set()
        self._ended = ended

    def _in_service(self, model: Model, described_at: float, now: float) -> bool:
        """Also when it should have become ready by now; not while it may just be scaled down or unregistered."""
        for worker in model.workers:
            ended = self._ended.get(worker.pid, 0.0)
            if described_at <= ended and now - ended < CONFIRM_LIMIT_S:
                return False
        limit = model.startup_timeout + health.REGISTRATION_SLACK_S
        return model.name in self._was_ready or now - self._joined.get(model.name, now) > limit

    def _ask(self, model: Model) -> canary.Question:
        return canary.Question(
            self._plan.endpoints, self._plan.store, model, float(model.response_timeout or 60)
        )

    def _log(self, message: str) -> None:
        """A log that cannot be written is no reason to stop watching."""
        with contextlib.suppress(Exception):
            self._say(message)
