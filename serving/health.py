"""Decide from observations whether workers, model versions and the server can answer: the one definition of ready.

Everything here is pure. health_monitor.py collects the observations, health_server.py publishes the results.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from serving.origin import Origin
from serving.readiness import Model, Worker

Phase = Literal["starting", "running", "restarting", "stopping"]

HEARTBEAT_LIMIT_S = 5.0
"""A worker whose heartbeat is older does not run Python code."""
FRONT_END_LIMIT_S = 10.0
"""A front end that answers nothing for so long is down; shorter pauses are normal while a model is registered."""
QUEUE_STALL_LIMIT_S = 10.0
"""Requests that wait for so long beside idle workers are not being handed out."""
STALE_LIMIT_S = 5.0
"""Observations that are older say nothing about now."""
REGISTRATION_SLACK_S = 30.0
"""Beyond startupTimeout, before a registered model that never became ready counts as a failure."""


@dataclass(frozen=True)
class Version:
    """One version of a model with everything that decides about it.

    Attributes:
        min_workers: Workers that the version is meant to have, also while the supervisor scales it to revive it.
        in_service: Whether its failure is the server's failure: it was ready before, or is overdue.
        needs_answer: Whether a new worker must answer before it counts; False where no question is known.
        question_problem: Why the latest questions were not answered; None when they were.
        queue_stalled_s: How long requests have been waiting while every worker was idle.
        origin: Where its weights are from, as its archive said when the version was first seen.
    """

    model: Model
    min_workers: int
    in_service: bool = True
    needs_answer: bool = True
    question_problem: str | None = None
    queue_stalled_s: float = 0.0
    origin: Origin = field(default_factory=Origin)

    @property
    def key(self) -> tuple[str, str]:
        return self.model.name, self.model.version

    @property
    def in_flight(self) -> int:
        """Requests in the batches that are being computed; one for a worker that does not report its batch."""
        return sum(
            worker.activity.batch_requests if worker.activity else 1
            for worker in self.model.workers
            if worker.computing
        )

    @property
    def answers(self) -> int:
        return sum(worker.activity.answers for worker in self.model.workers if worker.activity)


def is_responsive(worker: Worker, now: float) -> bool:
    """Whether the process runs: not suspended, and with a recent heartbeat where it has one."""
    if not worker.alive or worker.stopped:
        return False
    return worker.activity is None or now - worker.activity.heartbeat <= HEARTBEAT_LIMIT_S


def worker_problem(worker: Worker, response_timeout: float, now: float) -> str | None:
    """Why this worker cannot answer now; None when it can. Being busy is not a problem."""
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


def is_proven(worker: Worker) -> bool:
    """Whether it has answered since it was started. Without an activity file TorchServe's word is all there is."""
    return worker.activity is None or worker.activity.answers > 0


def version_problem(version: Version, now: float) -> str | None:
    """Why this version cannot answer requests; None when one worker at least can."""
    usable = usable_workers(version, now)
    if not usable:
        timeout = version.model.response_timeout
        problems = {worker_problem(worker, timeout, now) or "" for worker in version.model.workers}
        return "; ".join(sorted(problems)) or "it has no worker"
    if version.queue_stalled_s > QUEUE_STALL_LIMIT_S:
        return f"requests have waited for {version.queue_stalled_s:.0f} s and its idle workers get none"
    if version.question_problem:
        return f"does not answer: {version.question_problem}"
    if version.needs_answer and not any(is_proven(worker) for worker in usable):
        return "its new worker has not answered yet"
    return None


def strength_problem(version: Version, now: float) -> str | None:
    """What keeps this version from its full strength: every worker that it is meant to have."""
    if not version.min_workers:
        return None
    count = len(usable_workers(version, now))
    if count < version.min_workers:
        return f"{count} of {version.min_workers} workers can answer"
    return version_problem(version, now)


def is_idle(version: Version) -> bool:
    """No request waits, and no worker is computing."""
    return version.model.queue_waiting == 0 and not any(worker.computing for worker in version.model.workers)


@dataclass(frozen=True)
class Snapshot:
    """The server at one moment. Times are `time.monotonic()` seconds, but `wall_time` is `time.time()`.

    `front_end_answered`: when the management API last answered. `described`: the wall time of that answer.
    `missing`: versions that a restart of the front end could not load again, with the reason.
    """

    at: float
    wall_time: float
    phase: Phase = "starting"
    versions: tuple[Version, ...] = ()
    undescribed: Mapping[str, str] = field(default_factory=dict)
    front_end_answered: float = 0.0
    described: float = 0.0
    missing: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def named(self, name: str, version: str | None = None) -> Version | None:
        """That version, or the default one."""
        for each in self.versions:
            if each.model.name == name and (
                each.model.default if version is None else each.model.version == version
            ):
                return each
        return None


def front_end_problem(snapshot: Snapshot, now: float) -> str | None:
    """What makes every model unable to answer, whatever its workers do."""
    if snapshot.phase != "running":
        return {"starting": "the server is starting", "stopping": "the server is stopping"}.get(
            snapshot.phase, "the front end is being restarted"
        )
    if now - snapshot.at > STALE_LIMIT_S:
        return f"the supervisor has observed nothing for {now - snapshot.at:.0f} s"
    silent = now - snapshot.front_end_answered
    if silent > FRONT_END_LIMIT_S:
        return f"the front end has not answered for {silent:.0f} s"
    return None


def model_problem(
    snapshot: Snapshot, version: Version, now: float, *, strict: bool = False, of_server: bool = False
) -> str | None:
    """Why a probe for this version is answered with 503; of the whole server's state, only what concerns it.

    A start is no reason for it (`of_server` False): models become ready one after another.
    """
    problem = front_end_problem(snapshot, now)
    if problem and (of_server or snapshot.phase != "starting"):
        return problem
    if strict and (weak := strength_problem(version, now)):
        return weak
    return version_problem(version, now)


def server_problem(snapshot: Snapshot, now: float, *, strict: bool = False) -> str | None:
    """Why the server as a whole is not ready; None when it is.

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
    answering = {version.model.name for version in snapshot.versions}
    for (name, number), why in snapshot.missing.items():
        if strict or name not in answering:
            yield f"{name} {number}: not loaded again: {why}"
    if strict:
        yield from (f"{name}: it cannot be described: {why}" for name, why in snapshot.undescribed.items())


def as_json(snapshot: Snapshot, now: float) -> dict[str, Any]:
    """The body of GET /state."""
    problem = server_problem(snapshot, now)
    strict_problem = server_problem(snapshot, now, strict=True)
    phase = snapshot.phase
    running: str = "not ready" if problem else "ready"
    return {
        "phase": running if phase == "running" else phase,
        "ready": problem is None,
        "strict": strict_problem is None,
        "live": now - snapshot.front_end_answered <= FRONT_END_LIMIT_S,
        "reason": problem,
        "strict_reason": strict_problem,
        "updated": snapshot.wall_time,
        "described": snapshot.described,
        "models": [_version_json(snapshot, version, now) for version in snapshot.versions],
        "undescribed": dict(snapshot.undescribed),
    }


def _version_json(snapshot: Snapshot, version: Version, now: float) -> dict[str, Any]:
    model = version.model
    problem = model_problem(snapshot, version, now)
    strict_problem = model_problem(snapshot, version, now, strict=True)
    return {
        "name": model.name,
        "version": model.version,
        "default": model.default,
        "archive": model.archive,
        **asdict(version.origin),
        "ready": problem is None,
        "reason": problem,
        "strict": strict_problem is None,
        "strict_reason": strict_problem,
        "min_workers": version.min_workers,
        "max_workers": model.max_workers,
        "queue_waiting": model.queue_waiting,
        "queue_free": model.queue_free,
        "in_flight": version.in_flight,
        "idle": is_idle(version),
        "workers": [_worker_json(worker, now) for worker in model.workers],
    }


def _worker_json(worker: Worker, now: float) -> dict[str, Any]:
    activity = worker.activity
    return {
        "id": worker.id,
        "pid": worker.pid,
        "status": worker.status,
        "alive": worker.alive,
        "responsive": is_responsive(worker, now),
        "reports": activity is not None,
        "computing_s": round(now - activity.batch_started, 3) if activity and activity.is_computing else None,
        "answers": activity.answers if activity else 0,
        "held": activity is not None and activity.held,
        "memory": worker.memory,
    }
