"""The definition of readiness that the client, the supervisor and the gateway share.

A worker can answer if TorchServe lists it as READY and no observation of its process contradicts this. A
version is ready when one of its workers can answer, and at full strength (`strict`) when all workers that it should
have can. A server is ready when the default version of every model is, models that are scaled to 0 excluded.

The dataclasses hold observations. The client and a gateway without a supervisor have only TorchServe's descriptions;
the supervisor also observes the worker processes, their reports, and the results of probes. Fields that
were not observed keep their default, which never makes a model unready. All functions are pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torchserve_models.client.readiness_report import Key, ServerReport, VersionReport

HEARTBEAT_LIMIT_S = 5.0
"""Maximum age of a heartbeat; a worker with an older one does not run Python code."""
QUEUE_STALL_LIMIT_S = 10.0
"""Wait of queued requests beside idle workers after which dispatching is considered stalled."""


@dataclass(frozen=True)
class WorkerState:
    """Observed state of one worker.

    Attributes:
        status: READY once the model is loaded. TorchServe may keep it after the process has died.
        pid: Process id; -1 while the process is being started.
        alive: Whether the process exists.
        suspended: Whether a signal has suspended the process.
        heartbeat_age_s: Seconds since the worker's latest heartbeat.
        no_progress_s: Seconds without progress in the batch that the worker computes; 0 if it computes none.
        proven: Whether this worker, or another one of its version, has answered a request.
    """

    status: str
    pid: int
    alive: bool = True
    suspended: bool = False
    heartbeat_age_s: float = 0.0
    no_progress_s: float = 0.0
    proven: bool = True


@dataclass(frozen=True)
class VersionState:
    """Observed state of one version of a model.

    Attributes:
        default: Whether it answers requests that name no version.
        min_workers: Number of workers that it should have; 0 if it is scaled to 0 on purpose.
        response_timeout_s: Seconds that a batch may go without progress.
        queue_waiting: Number of requests in its queue.
        queue_stalled_s: Seconds for which requests have been waiting while every worker was idle.
        probe_failure: Why the latest probes failed; None if they did not.
        in_service: Whether its failure is the server's failure; not while it is being registered.
    """

    name: str
    version: str
    default: bool
    min_workers: int
    workers: tuple[WorkerState, ...]
    response_timeout_s: float
    queue_waiting: int = 0
    queue_stalled_s: float = 0.0
    probe_failure: str | None = None
    in_service: bool = True


@dataclass(frozen=True)
class ServerState:
    """Observed state of all models of a server.

    Attributes:
        undescribed: Models that TorchServe lists and cannot describe, with the reason.
        missing: Versions that a restart of the front end could not load again, with the reason.
        lost_defaults: Default versions, by model, that such a restart could not restore as default.
        starting: Whether the server is starting, while its models become ready one after another.
        front_end_problem: Why no model can be reached; None if they can.
    """

    versions: Sequence[VersionState]
    undescribed: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[Key, str] = field(default_factory=dict)
    lost_defaults: Mapping[str, str] = field(default_factory=dict)
    starting: bool = False
    front_end_problem: str | None = None


def is_responsive(worker: WorkerState) -> bool:
    """Return whether the process runs: not suspended, and with a recent heartbeat if it reports one."""
    return worker.alive and not worker.suspended and worker.heartbeat_age_s <= HEARTBEAT_LIMIT_S


def worker_problem(worker: WorkerState, response_timeout_s: float) -> str | None:
    """Return why the worker cannot answer now; None if it can. Being busy is not a problem."""
    if not worker.alive:
        is_gone = worker.status == "READY" and worker.pid > 0
        return f"worker {worker.pid} has died" if is_gone else "a worker is being started"
    if worker.suspended:
        return f"worker {worker.pid} is suspended by a signal"
    if worker.status != "READY":
        return f"worker {worker.pid} is loading the model" if worker.pid > 0 else "a worker is being started"
    if not is_responsive(worker):
        return f"worker {worker.pid} has shown no heartbeat for {worker.heartbeat_age_s:.0f} s"
    if worker.no_progress_s > response_timeout_s:
        return f"worker {worker.pid} has made no progress for {worker.no_progress_s:.0f} s"
    return None


def usable_workers(version: VersionState) -> list[WorkerState]:
    """Return the workers that can answer now."""
    return [
        worker for worker in version.workers if worker_problem(worker, version.response_timeout_s) is None
    ]


def version_problem(version: VersionState) -> str | None:
    """Return why the version cannot answer requests; None if at least one worker can."""
    usable = usable_workers(version)
    if not usable:
        problems = {worker_problem(worker, version.response_timeout_s) or "" for worker in version.workers}
        return "; ".join(sorted(problems)) or "the version has no worker"
    if version.queue_stalled_s > QUEUE_STALL_LIMIT_S:
        return f"requests have waited for {version.queue_stalled_s:.0f} s although workers are idle"
    if version.probe_failure:
        return f"does not answer: {version.probe_failure}"
    if not any(worker.proven for worker in usable):
        return "the new worker has not answered yet"
    return None


def strength_problem(version: VersionState) -> str | None:
    """Return why the version has fewer usable workers than it should have; None if it has enough."""
    if not version.min_workers:
        return None
    count = len(usable_workers(version))
    if count < version.min_workers:
        return f"{count} of {version.min_workers} workers can answer"
    return version_problem(version)


def is_busy(version: VersionState, *, refused: bool = True) -> bool:
    """Return whether a request was not answered only because the version has more requests than it can take.

    TorchServe rejects a request (503) with the same message if the queue is full and if there is no worker.

    Args:
        version: The version that the request was for, as described afterwards.
        refused: Whether TorchServe's front end rejected the request. If it accepted the request and no answer came in
            time, the version is busy only if requests are queued: the request may be with a worker that hangs.
    """
    return bool(usable_workers(version)) and (refused or version.queue_waiting > 0)


def judge(server: ServerState) -> ServerReport:
    """Return the readiness report of a server."""
    reason = strict_reason = server.front_end_problem or (
        "the server is starting" if server.starting else None
    )
    if reason is None and not server.versions and not server.missing:
        reason = strict_reason = (
            "no model can be described" if server.undescribed else "no model is registered"
        )
    if reason is None:
        reason = "; ".join(_problems(server)) or None
        strict_reason = "; ".join(_strict_problems(server)) or None
    return ServerReport(
        reason,
        strict_reason,
        tuple(_judge_version(version, server.front_end_problem) for version in server.versions),
        _unavailable_models(server),
        dict(server.missing),
    )


def _judge_version(version: VersionState, front_end_problem: str | None) -> VersionReport:
    reason = front_end_problem or version_problem(version)
    strict_reason = front_end_problem or strength_problem(version) or reason
    return VersionReport(
        version.name, version.version, version.default, version.min_workers, reason, strict_reason
    )


def _problems(server: ServerState) -> Iterator[str]:
    for version in server.versions:
        if version.default and version.min_workers and version.in_service:
            problem = version_problem(version)
            if problem:
                yield f"{version.name}: {problem}"
    yield from _lost_versions(server, strict=False)


def _strict_problems(server: ServerState) -> Iterator[str]:
    for version in server.versions:
        problem = strength_problem(version)
        if problem:
            yield f"{version.name} {version.version}: {problem}"
    yield from _lost_versions(server, strict=True)
    for name, reason in server.undescribed.items():
        yield f"{name}: TorchServe cannot describe the model: {reason}"


def _lost_versions(server: ServerState, strict: bool) -> Iterator[str]:
    """Yield a problem for each version that a restart of the front end did not restore.

    Without `strict`, ignore such versions of models that are served.
    """
    served = {version.name for version in server.versions}
    for (name, number), reason in server.missing.items():
        if strict or name not in served:
            yield f"{name} {number}: not loaded again: {reason}"
    for name, reason in _unavailable_models(server).items():
        if name in server.lost_defaults and name in served:
            yield f"{name}: {reason}"


def _unavailable_models(server: ServerState) -> dict[str, str]:
    """Return models whose default version is missing or wrong, with the reason.

    After a restart that could not load the default version, TorchServe makes another version the default, which the
    operator did not choose.
    """
    defaults = {version.name: version.version for version in server.versions if version.default}
    served = {version.name for version in server.versions}
    reasons = {
        name: f"TorchServe cannot describe the model: {reason}"
        for name, reason in server.undescribed.items()
        if name not in served
    }
    for (name, version), reason in server.missing.items():
        if name not in served:
            reasons[name] = f"version {version} was not loaded again: {reason}"
    for name, version in server.lost_defaults.items():
        if name in defaults and defaults[name] != version:
            reason = server.missing.get((name, version), "TorchServe has another default version")
            reasons[name] = (
                f"its default version {version} was not restored: {reason}; {defaults[name]} is the default version "
                "instead until you register the old one again or set the default version"
            )
    return reasons
