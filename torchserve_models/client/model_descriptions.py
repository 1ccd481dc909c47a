"""Models and workers as described by the management API and the Open Inference Protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchserve_models.client import readiness
from torchserve_models.client.readiness import VersionState, WorkerState


@dataclass(frozen=True)
class ModelMetadata:
    """Metadata of a model by the Open Inference Protocol. TorchServe provides only the name and the versions.

    Attributes:
        name: The model's name.
        versions: Its registered versions.
        platform: Empty with TorchServe.
    """

    name: str
    versions: tuple[str, ...]
    platform: str


@dataclass(frozen=True)
class ModelEntry:
    """One model in the list of models.

    Attributes:
        name: The model's name.
        url: The archive of its default version.
    """

    name: str
    url: str


@dataclass(frozen=True)
class Worker:
    """One worker as TorchServe describes it.

    Attributes:
        id: TorchServe's id of the worker.
        status: READY once the model is loaded, UNLOADING in every other state, also while the worker starts.
        pid: Process id; -1 while the process is being started.
        gpu: Whether the worker has a GPU.
        memory_bytes: Resident memory in bytes.
        start_time: When it was started, ISO 8601 in UTC.
    """

    id: str
    status: str
    pid: int
    gpu: bool
    memory_bytes: int
    start_time: str

    @property
    def ready(self) -> bool:
        """Whether the worker has loaded the model."""
        return self.status == "READY"


@dataclass(frozen=True)
class Model:
    """One version of a model as the management API describes it.

    Attributes:
        name: The model's name.
        version: Its version.
        url: The archive that it was registered from.
        min_workers: Workers that the version should have.
        max_workers: Workers that it may have.
        batch_size: Largest number of requests in a batch.
        max_batch_delay: Milliseconds that a batch waits for further requests.
        response_timeout: Seconds after which TorchServe ends a worker that does not answer.
        startup_timeout: Seconds that a worker may take to load.
        device_type: "cpu" or "gpu"; None if it is not configured.
        loaded_at_startup: Whether it was loaded when TorchServe started; False if it was registered later.
        workers: Its workers.
        queue_free: Requests that its queue can still take; None if unknown.
        queue_waiting: Requests in its queue; None if unknown.
        metadata: The handler's description: weights, engine, device. None unless `customized` was set.
        default: Whether this is the default version, which answers requests without a version; None if unknown.
    """

    name: str
    version: str
    url: str
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay: int
    response_timeout: int
    startup_timeout: int
    device_type: str | None
    loaded_at_startup: bool
    workers: tuple[Worker, ...]
    queue_free: int | None
    queue_waiting: int | None
    metadata: Mapping[str, Any] | None = None
    default: bool | None = None

    @property
    def state(self) -> VersionState:
        """State of the version for readiness.py, from TorchServe's description."""
        return VersionState(
            name=self.name,
            version=self.version,
            default=self.default is not False,
            min_workers=self.min_workers,
            workers=tuple(WorkerState(worker.status, worker.pid) for worker in self.workers),
            response_timeout_s=self.response_timeout,
            queue_waiting=self.queue_waiting or 0,
        )

    @property
    def ready(self) -> bool:
        """Whether at least one worker has loaded the model and can answer."""
        return readiness.version_problem(self.state) is None
