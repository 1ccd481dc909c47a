"""Registered models and their workers, as TorchServe's management API and the operating system report them."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from handlers.core.activity import Activity
from torchserve_models import client
from torchserve_models.client import Client, Endpoints

Key = tuple[str, str]
"""Name and version of a model."""


@dataclass(frozen=True)
class Worker:
    """One worker. `status` is TorchServe's, which may stay READY for a dead worker; `alive` is the kernel's."""

    id: str
    status: str
    pid: int
    alive: bool
    memory: int
    """Resident memory in bytes."""
    stopped: bool = False
    """Whether a signal has suspended the process (state T)."""
    activity: Activity | None = None
    """The worker's own report; None while it loads and for handlers that do not report."""
    waiting: bool = True
    """Whether the process waits for input according to the kernel; used if the worker does not report."""

    @property
    def ready(self) -> bool:
        return self.status == "READY" and self.alive

    @property
    def computing(self) -> bool:
        """Whether the worker computes a batch, by its own report if there is one."""
        if not self.alive:
            return False
        if self.activity:
            return self.activity.is_computing
        return self.ready and not self.waiting

    @property
    def is_lost(self) -> bool:
        """Whether TorchServe lists the worker as READY although its process is gone."""
        return self.status == "READY" and not self.alive


@dataclass(frozen=True)
class Model:
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
    workers: tuple[Worker, ...]
    batch_size: int = 1
    max_batch_delay: int = 0
    """In milliseconds."""

    @property
    def ready(self) -> bool:
        """Whether the version has all the workers it should have."""
        return sum(worker.ready for worker in self.workers) >= self.worker_count

    @property
    def worker_count(self) -> int:
        """Number of workers the version should have; at least one for the default version."""
        return max(self.min_workers, 1 if self.default else 0)

    @property
    def lost(self) -> tuple[Worker, ...]:
        return tuple(worker for worker in self.workers if worker.is_lost)

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(worker.pid for worker in self.workers if worker.ready)


@dataclass(frozen=True)
class Survey:
    """All versions of the models that could be described.

    Attributes:
        undescribed: Models that TorchServe lists and cannot describe, with the reason.
        unreached: Models about which nothing was learned, with the reason: no answer came, or the time ran out.
        out_of_time: Those of them that were not even asked for.
    """

    models: tuple[Model, ...]
    undescribed: Mapping[str, str]
    unreached: Mapping[str, str] = field(default_factory=dict)
    out_of_time: frozenset[str] = frozenset()

    @property
    def is_complete(self) -> bool:
        """Whether `models` holds all models of TorchServe."""
        return not self.undescribed and not self.unreached


def survey(
    connection: Client,
    timeout: float = 5.0,
    answered: Callable[[], None] = lambda: None,
    first: Collection[str] = (),
) -> Survey:
    """Describe every registered model; a failure of one does not affect the others.

    Args:
        connection: Its timeout is for one answer.
        timeout: Seconds after which no further model is asked for.
        answered: Called after each answer.
        first: Names of the models to begin with, such as those that the last survey had no time for.

    Raises:
        client.TorchServeError: The front end does not list its models.
    """
    deadline = time.monotonic() + timeout
    models: list[Model] = []
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
            models += _versions(connection, name)
        except client.TransportError as error:
            unreached[name] = error.message
            continue
        except client.TorchServeError as error:
            undescribed[name] = error.message
        answered()
    return Survey(tuple(models), undescribed, unreached, frozenset(out_of_time))


def inspect(endpoints: Endpoints, names: Sequence[str] | None = None, timeout: float = 5.0) -> list[Model]:
    """Return every version of the named models, or of all models that can be described.

    `timeout` is for one answer, and no further question is asked when it is over. Raises client.TorchServeError
    when the server does not answer each question, and for a named model that cannot be described.
    """
    deadline = time.monotonic() + timeout
    with Client(endpoints=endpoints, timeout=timeout, retries=0) as connection:
        if names is None:
            survey_result = survey(connection, timeout)
            for name, reason in survey_result.unreached.items():
                raise client.Timeout(f"the front end did not describe {name}: {reason}")
            return list(survey_result.models)
        models: list[Model] = []
        for name in names:
            if time.monotonic() > deadline:
                raise client.Timeout(f"the front end took longer than {timeout:g} s to describe its models")
            models += _versions(connection, name)
        return models


def _versions(connection: Client, name: str) -> list[Model]:
    """Return all versions of a model; ask TorchServe for the default version if there are several."""
    description = connection.describe_versions(name)
    default = description[0].version if len(description) == 1 else connection.describe(name).version
    return [_model(version, version.version == default) for version in description]


def replace_lost(endpoints: Endpoints, model: Model, worker_count: int) -> None:
    """Make TorchServe start workers until `worker_count` besides lost ones exist. Idempotent.

    It counts a lost worker as one it has. While others of the model work, more are asked for than are wanted: that
    changes the minimum, which is then set back, and the maximum, which stays, as the lost ones stay in the list. When
    none is left, the model is scaled to nothing first, which drops them. Queued requests survive that.
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


def _model(description: client.Model, default: bool) -> Model:
    return Model(
        name=description.name,
        version=description.version,
        default=default,
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


def _worker(description: client.Worker) -> Worker:
    alive, memory = False, 0
    try:
        process = psutil.Process(description.pid) if description.pid > 0 else None
        if process is not None and process.status() != psutil.STATUS_ZOMBIE:
            alive, memory = True, process.memory_info().rss
    except psutil.Error:
        pass
    return Worker(description.id, description.status, description.pid, alive, memory)
