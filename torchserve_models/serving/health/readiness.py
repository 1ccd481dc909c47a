"""Decide from observations whether workers, model versions and the server can answer: the one definition of ready.

Everything here is pure. health_monitor.py collects the observations; http_server.py and state_report.py publish
the results.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torchserve_models.serving.health.archive_origin import Origin
from torchserve_models.serving.health.model_states import Key, Model, Worker

Phase = Literal["starting", "running", "restarting", "stopping"]

HEARTBEAT_LIMIT_S = 5.0
"""A worker whose heartbeat is older does not run Python code."""
FRONT_END_LIMIT_S = 10.0
"""A front end silent for this long is down; shorter pauses are normal while a model is registered."""
QUEUE_STALL_LIMIT_S = 10.0
"""Requests that wait this long beside idle workers are not being dispatched."""
STALE_LIMIT_S = 5.0
"""Older observations are not used."""
REGISTRATION_SLACK_S = 30.0
"""Beyond startupTimeout, before a registered model that never became ready counts as a failure."""


@dataclass(frozen=True)
class Version:
    """One version of a model with everything that decides its readiness.

    Attributes:
        min_workers: Workers that the version is meant to have, also while the supervisor scales it to revive it.
        in_service: Whether its failure is the server's failure: it was ready before, or is overdue.
        needs_answer: Whether a new worker must answer before it counts; False if the task has no probe.
        trusted_pids: Workers that need not answer first: they were usable beside one that had answered.
        probe_failure: Why the latest probes failed; None if they did not.
        queue_stalled_s: How long requests have been waiting while every worker was idle.
        origin: Where its weights are from, as its archive said when the version was first seen.
    """

    model: Model
    min_workers: int
    in_service: bool = True
    needs_answer: bool = True
    trusted_pids: frozenset[int] = frozenset()
    probe_failure: str | None = None
    queue_stalled_s: float = 0.0
    origin: Origin = field(default_factory=Origin)

    @property
    def key(self) -> Key:
        return self.model.name, self.model.version

    @property
    def in_flight(self) -> int:
        """Number of requests in batches being computed; one for a worker that does not report its batch."""
        return sum(
            worker.activity.batch_requests if worker.activity else 1
            for worker in self.model.workers
            if worker.computing
        )

    @property
    def answers(self) -> int:
        return sum(worker.activity.answers for worker in self.model.workers if worker.activity)


def is_responsive(worker: Worker, now: float) -> bool:
    """Return whether the process runs: not suspended, and with a recent heartbeat if it reports one."""
    if not worker.alive or worker.stopped:
        return False
    return worker.activity is None or now - worker.activity.heartbeat <= HEARTBEAT_LIMIT_S


def worker_problem(worker: Worker, response_timeout: float, now: float) -> str | None:
    """Return why this worker cannot answer now; None if it can. Being busy is not a problem."""
    if worker.pid <= 0 or (worker.status != "READY" and not worker.alive):
        return "a worker is being started"
    if not worker.alive:
        return f"worker {worker.pid} has died"
    if worker.stopped:
        return f"worker {worker.pid} is suspended by a signal"
    if worker.status != "READY":
        return f"worker {worker.pid} is loading the model"
    activity = worker.activity
    if activity is None:
        return None
    if not is_responsive(worker, now):
        return f"worker {worker.pid} has shown no heartbeat for {now - activity.heartbeat:.0f} s"
    if activity.is_computing and now - activity.progress > response_timeout:
        return f"worker {worker.pid} has made no progress for {now - activity.progress:.0f} s"
    return None


def usable_workers(version: Version, now: float) -> list[Worker]:
    timeout = version.model.response_timeout
    return [worker for worker in version.model.workers if worker_problem(worker, timeout, now) is None]


def is_proven(version: Version, worker: Worker) -> bool:
    """Return whether the worker, or one beside it, has answered since its start.

    Without an activity file TorchServe's word is all there is.
    """
    return worker.activity is None or worker.activity.answers > 0 or worker.pid in version.trusted_pids


def version_problem(version: Version, now: float) -> str | None:
    """Return why this version cannot answer requests; None if at least one worker can."""
    usable = usable_workers(version, now)
    if not usable:
        timeout = version.model.response_timeout
        problems = {worker_problem(worker, timeout, now) or "" for worker in version.model.workers}
        return "; ".join(sorted(problems)) or "it has no worker"
    if version.queue_stalled_s > QUEUE_STALL_LIMIT_S:
        return f"requests have waited for {version.queue_stalled_s:.0f} s and its idle workers get none"
    if version.probe_failure:
        return f"does not answer: {version.probe_failure}"
    if version.needs_answer and not any(is_proven(version, worker) for worker in usable):
        return "its new worker has not answered yet"
    return None


def strength_problem(version: Version, now: float) -> str | None:
    """Return why not all workers of this version can answer; None if they can."""
    if not version.min_workers:
        return None
    count = len(usable_workers(version, now))
    if count < version.min_workers:
        return f"{count} of {version.min_workers} workers can answer"
    return version_problem(version, now)


def is_idle(version: Version) -> bool:
    """Return whether no request waits and no worker is computing."""
    return version.model.queue_waiting == 0 and not any(worker.computing for worker in version.model.workers)


@dataclass(frozen=True)
class Snapshot:
    """State of the server at one moment. Times are `time.monotonic()` seconds, except `wall_time` (`time.time()`).

    `front_end_answered`: when the management API last answered. `described`: the wall time of that answer.
    `missing`: versions that a restart of the front end could not load again, with the reason.
    `lost_defaults`: default versions, by model, that a restart could not bring back as such.
    """

    at: float
    wall_time: float
    phase: Phase = "starting"
    versions: tuple[Version, ...] = ()
    undescribed: Mapping[str, str] = field(default_factory=dict)
    front_end_answered: float = 0.0
    described: float = 0.0
    missing: Mapping[Key, str] = field(default_factory=dict)
    lost_defaults: Mapping[str, str] = field(default_factory=dict)

    def named(self, name: str, version: str | None = None) -> Version | None:
        """Return that version, by default the default one; None if it is not registered."""
        for candidate in self.versions:
            if candidate.model.name == name and (
                candidate.model.default if version is None else candidate.model.version == version
            ):
                return candidate
        return None


def front_end_problem(snapshot: Snapshot, now: float) -> str | None:
    """Return the front-end problem that affects every model; None if there is none."""
    if snapshot.phase != "running":
        return {"starting": "the server is starting", "stopping": "the server is stopping"}.get(
            snapshot.phase, "the front end is being restarted"
        )
    if now - snapshot.at > STALE_LIMIT_S:
        return f"the supervisor has observed nothing for {now - snapshot.at:.0f} s"
    silent_s = now - snapshot.front_end_answered
    if silent_s > FRONT_END_LIMIT_S:
        return f"the front end has not answered for {silent_s:.0f} s"
    return None


def model_problem(
    snapshot: Snapshot, version: Version, now: float, *, strict: bool = False, of_server: bool = False
) -> str | None:
    """Return why a probe of this version is answered with 503, considering only what affects this version.

    A start is no reason for it (`of_server` False): models become ready one after another.
    """
    problem = front_end_problem(snapshot, now)
    if problem and (of_server or snapshot.phase != "starting"):
        return problem
    if strict and (strength := strength_problem(version, now)):
        return strength
    return version_problem(version, now)


def unavailable_models(snapshot: Snapshot) -> dict[str, str]:
    """Return models whose default version is missing or wrong, with the reason.

    After a restart that could not load the default version, TorchServe makes another version the default by itself.
    Its answers are not those that were asked for.
    """
    served = {version.model.name for version in snapshot.versions}
    reasons = {
        name: f"TorchServe cannot describe it: {reason}"
        for name, reason in snapshot.undescribed.items()
        if name not in served
    }
    for (name, version), reason in snapshot.missing.items():
        if name not in served:
            reasons[name] = f"version {version} was not loaded again: {reason}"
    for name, version in snapshot.lost_defaults.items():
        version_state = snapshot.named(name)
        if version_state is not None and version_state.model.version != version:
            reason = snapshot.missing.get((name, version), "TorchServe has another default version")
            reasons[name] = (
                f"its default version {version} was not restored: {reason}; {version_state.model.version} is "
                "the default version instead until you register the old one again or set the default version"
            )
    return reasons


def probe_problem(
    snapshot: Snapshot, name: str, version: str | None, now: float, *, strict: bool = False
) -> str | None:
    """Return why a probe of this model or version is answered with 503. Raises KeyError if it is unknown."""
    unavailable = unavailable_models(snapshot)
    if version is None and name in unavailable:
        return unavailable[name]
    version_state = snapshot.named(name, version)
    if version_state is not None:
        return model_problem(snapshot, version_state, now, strict=strict)
    if version is not None and (name, version) in snapshot.missing:
        return f"version {version} was not loaded again: {snapshot.missing[name, version]}"
    return unavailable[name]


def server_problem(snapshot: Snapshot, now: float, *, strict: bool = False) -> str | None:
    """Return why the server as a whole is not ready; None if it is.

    Ready means that the default version of every model can answer. Other versions, models that are scaled to 0, and
    models whose registration is in progress do not matter, except in strict mode.
    """
    problem = front_end_problem(snapshot, now)
    if problem:
        return problem
    if not snapshot.versions and not snapshot.missing:
        return "no model is registered" if not snapshot.undescribed else "no model can be described"
    problems = list(_problems(snapshot, now, strict))
    return "; ".join(problems) or None


def _problems(snapshot: Snapshot, now: float, strict: bool) -> Iterator[str]:
    for version in snapshot.versions:
        model = version.model
        if strict:
            if problem := strength_problem(version, now):
                yield f"{model.name} {model.version}: {problem}"
        elif (
            model.default
            and version.min_workers
            and version.in_service
            and (problem := version_problem(version, now))
        ):
            yield f"{model.name}: {problem}"
    served = {version.model.name for version in snapshot.versions}
    for (name, number), reason in snapshot.missing.items():
        if strict or name not in served:
            yield f"{name} {number}: not loaded again: {reason}"
    for name, reason in unavailable_models(snapshot).items():
        if name in snapshot.lost_defaults and name in served:
            yield f"{name}: {reason}"
    if strict:
        yield from (
            f"{name}: it cannot be described: {reason}" for name, reason in snapshot.undescribed.items()
        )
