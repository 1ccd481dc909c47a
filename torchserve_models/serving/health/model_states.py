"""Which models the server has, and which of their workers are truly there: what it says, and what the system says."""

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
    """`status` is TorchServe's, which stays READY for a worker whose thread is lost; `alive` is the system's."""

    id: str
    status: str
    pid: int
    alive: bool
    memory: int
    """Bytes in main memory."""
    stopped: bool = False
    """Whether a signal has suspended the process (state T)."""
    activity: Activity | None = None
    """What the worker itself reports; None for a handler that is not based on ours, and while it loads."""
    waiting: bool = True
    """Whether the process sleeps until it gets input, as far as the system says; of use where it reports nothing."""

    @property
    def ready(self) -> bool:
        return self.status == "READY" and self.alive

    @property
    def computing(self) -> bool:
        """Its own word, where it reports; `status` may be a second old."""
        if not self.alive:
            return False
        if self.activity:
            return self.activity.is_computing
        return self.ready and not self.waiting

    @property
    def is_lost(self) -> bool:
        """Said to be ready, but gone: TorchServe will neither use it rightly nor replace it."""
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
        """As many workers as it should have."""
        return sum(worker.ready for worker in self.workers) >= self.worker_count

    @property
    def worker_count(self) -> int:
        """How many workers it should have; the version that answers by default at least one."""
        return max(self.min_workers, 1 if self.default else 0)

    @property
    def lost(self) -> tuple[Worker, ...]:
        return tuple(worker for worker in self.workers if worker.is_lost)

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(worker.pid for worker in self.workers if worker.ready)


@dataclass(frozen=True)
class Survey:
    """Every version of the models that could be described.

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
        """Whether `models` are all that TorchServe has."""
        return not self.undescribed and not self.unreached


def survey(
    connection: Client,
    timeout: float = 5.0,
    answered: Callable[[], None] = lambda: None,
    first: Collection[str] = (),
) -> Survey:
    """Describe every registered model; one that cannot be described does not keep the others from it.

    Args:
        connection: Its timeout is for one answer.
        timeout: Seconds after which no further model is asked for.
        answered: Called after each answer.
        first: Names of the models to begin with, such as those that the last survey had no time for.

    Raises:
        client.ServeError: The front end does not list its models.
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
        except client.ServeError as error:
            undescribed[name] = error.message
        answered()
    return Survey(tuple(models), undescribed, unreached, frozenset(out_of_time))


def inspect(endpoints: Endpoints, names: Sequence[str] | None = None, timeout: float = 5.0) -> list[Model]:
    """Every version of the named models, or of all that can be described.

    `timeout` is for one answer, and no further question is asked when it is over. Raises client.ServeError when the
    server does not answer each question, and for a named model that cannot be described.
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
    """A model's only version is its default one; among several, TorchServe has to be asked which one is."""
    description = connection.describe_versions(name)
    default = description[0].version if len(description) == 1 else connection.describe(name).version
    return [_model(version, version.version == default) for version in description]


def replace_lost(endpoints: Endpoints, model: Model, worker_count: int) -> None:
    """Makes TorchServe start workers until `worker_count` others than lost ones are there. Again does no harm.

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
