"""Registered models and their workers, as reported by TorchServe's management API and the operating system."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from handlers.core.activity import Activity
from torchserve_models import client
from torchserve_models.client import Client, Endpoints
from torchserve_models.client.readiness import VersionState, WorkerState


@dataclass(frozen=True)
class ObservedWorker:
    """One worker.

    `status` comes from TorchServe and may stay READY after the worker's death; `alive` comes from the kernel.
    """

    id: str
    status: str
    pid: int
    alive: bool
    memory: int
    """Resident memory in bytes."""
    stopped: bool = False
    """Whether a signal has suspended the process (state T)."""
    activity: Activity | None = None
    """Activity that the worker reports; None while it loads and for handlers that do not report."""
    waiting: bool = True
    """Whether the process waits for input according to the kernel; used if the worker does not report."""

    @property
    def ready(self) -> bool:
        return self.status == "READY" and self.alive

    @property
    def computing(self) -> bool:
        """Whether the worker computes a batch: as it reports, otherwise as the kernel shows."""
        if not self.alive:
            return False
        if self.activity:
            return self.activity.is_computing
        return self.ready and not self.waiting

    @property
    def is_lost(self) -> bool:
        """Whether TorchServe lists the worker as READY although its process is gone."""
        return self.status == "READY" and not self.alive

    def state(self, now: float) -> WorkerState:
        """Return the worker's state for readiness checks at `now`, in `time.monotonic()` seconds."""
        activity = self.activity
        return WorkerState(
            status=self.status,
            pid=self.pid,
            alive=self.alive,
            suspended=self.stopped,
            heartbeat_age_s=now - activity.heartbeat if activity else 0.0,
            no_progress_s=now - activity.progress if activity and activity.is_computing else 0.0,
        )


@dataclass(frozen=True)
class ObservedVersion:
    """One version of a registered model."""

    name: str
    version: str
    default: bool
    archive: str
    min_workers: int
    max_workers: int
    startup_timeout: int
    response_timeout: int
    queue_waiting: int
    queue_free: int
    workers: tuple[ObservedWorker, ...]
    batch_size: int = 1
    max_batch_delay: int = 0
    """In milliseconds."""

    @property
    def lost(self) -> tuple[ObservedWorker, ...]:
        return tuple(worker for worker in self.workers if worker.is_lost)

    def state(self, now: float) -> VersionState:
        """Return the version's state for readiness checks at `now`, without results of probes and repairs."""
        return VersionState(
            name=self.name,
            version=self.version,
            default=self.default,
            min_workers=self.min_workers,
            workers=tuple(worker.state(now) for worker in self.workers),
            response_timeout_s=self.response_timeout,
            queue_waiting=self.queue_waiting,
        )


@dataclass(frozen=True)
class ServerDescription:
    """Descriptions of all registered models.

    Attributes:
        models: All versions of the models that could be described.
        undescribed: Names of models that TorchServe lists but cannot describe, with the reason.
        unreached: Names of models without a description, with the reason: no answer, or no time left to ask.
        out_of_time: The names in `unreached` that were not asked for, because no time was left.
    """

    models: tuple[ObservedVersion, ...]
    undescribed: Mapping[str, str]
    unreached: Mapping[str, str] = field(default_factory=dict)
    out_of_time: frozenset[str] = frozenset()

    @property
    def is_complete(self) -> bool:
        """Whether `models` contains every registered model."""
        return not self.undescribed and not self.unreached


def describe_server(
    connection: Client,
    timeout: float = 5.0,
    answered: Callable[[], None] = lambda: None,
    first: Collection[str] = (),
) -> ServerDescription:
    """Describe every registered model; a failure of one does not affect the others.

    Args:
        connection: Client for the management API; its timeout applies to each answer.
        timeout: Seconds after which no further model is described.
        answered: Called after each answer.
        first: Names of models to describe first, such as those for which the last call had no time left.

    Raises:
        client.TorchServeError: The front end does not list its models.
    """
    deadline = time.monotonic() + timeout
    models: list[ObservedVersion] = []
    undescribed: dict[str, str] = {}
    unreached: dict[str, str] = {}
    out_of_time: set[str] = set()
    names = sorted(
        (entry.name for entry in connection.list_models()), key=lambda name: (name not in first, name)
    )
    answered()
    for name in names:
        if time.monotonic() > deadline:
            unreached[name] = "the other models took too long to describe"
            out_of_time.add(name)
            continue
        try:
            models += [_model(version) for version in connection.describe_versions(name)]
        except client.TransportError as error:
            unreached[name] = error.message
            continue
        except client.TorchServeError as error:
            undescribed[name] = error.message
        answered()
    return ServerDescription(tuple(models), undescribed, unreached, frozenset(out_of_time))


def inspect(
    endpoints: Endpoints, names: Sequence[str] | None = None, timeout: float = 5.0
) -> list[ObservedVersion]:
    """Return every version of the named models, or of all models that can be described.

    Args:
        endpoints: Addresses of the server.
        names: Models to describe; by default all.
        timeout: Seconds for each answer; afterwards, no further request is sent.

    Raises:
        client.TorchServeError: The server does not answer a request, or cannot describe a named model.
    """
    deadline = time.monotonic() + timeout
    with Client(endpoints=endpoints, timeout=timeout, retries=0) as connection:
        if names is None:
            server_description = describe_server(connection, timeout)
            for name, reason in server_description.unreached.items():
                raise client.Timeout(f"the front end did not describe {name}: {reason}")
            return list(server_description.models)
        models: list[ObservedVersion] = []
        for name in names:
            if time.monotonic() > deadline:
                raise client.Timeout(f"the front end took longer than {timeout:g} s to describe its models")
            models += [_model(version) for version in connection.describe_versions(name)]
        return models


def replace_lost(endpoints: Endpoints, model: ObservedVersion, worker_count: int) -> None:
    """Make TorchServe start workers until `worker_count` workers exist besides the lost ones. Idempotent.

    TorchServe includes lost workers in its worker count. If other workers of the model run, the count is therefore
    raised by the number of lost workers; the minimum is then restored, and the maximum stays raised, because
    TorchServe keeps the lost workers in its list. If all workers are lost, scaling to 0 first removes them from the
    list; queued requests survive that.
    """
    lost = len(model.lost)
    with Client(endpoints=endpoints, timeout=2.0, retries=0) as connection:

        def scale(min_workers: int, max_workers: int) -> None:
            connection.scale(model.name, min_workers, max_workers, model.version, synchronous=False)

        if lost and lost == len(model.workers):
            scale(0, 0)
            lost = 0
        max_workers = max(worker_count + lost, model.max_workers)
        scale(worker_count + lost, max_workers)
        if lost:
            scale(worker_count, max_workers)


def _model(description: client.Model) -> ObservedVersion:
    return ObservedVersion(
        name=description.name,
        version=description.version,
        default=bool(description.default),
        archive=Path(description.url).name,
        min_workers=description.min_workers,
        max_workers=description.max_workers,
        startup_timeout=description.startup_timeout,
        response_timeout=description.response_timeout,
        queue_waiting=description.queue_waiting or 0,
        queue_free=description.queue_free or 0,
        workers=tuple(_worker(worker) for worker in description.workers),
        batch_size=description.batch_size,
        max_batch_delay=description.max_batch_delay,
    )


def _worker(description: client.Worker) -> ObservedWorker:
    alive, memory = False, 0
    try:
        process = psutil.Process(description.pid) if description.pid > 0 else None
        if process is not None and process.status() != psutil.STATUS_ZOMBIE:
            alive, memory = True, process.memory_info().rss
    except psutil.Error:
        pass
    return ObservedWorker(description.id, description.status, description.pid, alive, memory)
