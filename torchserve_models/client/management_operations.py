"""Management operations that lose no request. Each is a call sequence (see call_types.py).

TorchServe's parameter `synchronous` is not used: over REST it blocks a network thread, which serves a quarter of
all connections, while a worker loads. Workers are ended after they have been drained (drain.py).
"""

from collections.abc import Mapping
from typing import Any

from torchserve_models.client import worker_waits
from torchserve_models.client.call_types import CallSequence, Pause
from torchserve_models.client.drain import VersionDrainer
from torchserve_models.client.endpoints import Endpoints
from torchserve_models.client.errors import Conflict, InternalError, Timeout
from torchserve_models.client.management import GrpcManagement, Management, RestManagement
from torchserve_models.client.model_descriptions import Model
from torchserve_models.client.names import check_name
from torchserve_models.client.registration import Registration, check_archive, management_for

SCALE_ATTEMPTS = 3
"""Maximum number of scale calls. TorchServe answers 500 if a batch fails while TorchServe ends its worker."""


class ManagementOperations:
    """The management operations of one server, over REST or over gRPC."""

    def __init__(self, endpoints: Endpoints, over_grpc: bool) -> None:
        self._management: Management = GrpcManagement() if over_grpc else RestManagement()
        self._registration = Registration(endpoints, self._management, over_grpc)

    def register(self, archive: str, fields: Mapping[str, Any], wait: bool) -> CallSequence[str]:
        """Register an archive of the model store. With `wait`, wait until its workers are ready."""
        check_archive(archive, fields.get("model_name"))
        registered = yield from self._registration.register(archive, fields)
        if registered is None:
            return f"{archive} was registered, but the list of models has no new model or version"
        if wait:
            yield from worker_waits.wait_until_loaded(self._management, registered)
        return (
            f'Model "{registered.name}" Version: {registered.version} registered with {registered.min_workers} '
            "initial workers"
        )

    def scale(
        self, model: str, version: str | None, workers: tuple[int, int], wait: bool
    ) -> CallSequence[str]:
        """Change the number of workers without draining: (minimum, maximum)."""
        sentence: str = yield self._management.scale(model, version, *workers)
        if wait:
            yield from worker_waits.wait_until_ready(self._management, model, version)
            return _describe_scaling(model, workers)
        return sentence

    def scale_drained(
        self, model: str, version: str | None, workers: tuple[int, int], drain_timeout: float | None
    ) -> CallSequence[str]:
        """Change the number of workers. Surplus workers are ended one by one, each while it has no request."""
        min_workers, max_workers = workers
        self._management.scale(model, version, *workers)  # raises an error if the arguments are invalid
        description: Model = yield self._management.describe_one(model, version)
        drainer = VersionDrainer(self._management, description, drain_timeout)
        if max_workers == 0 and description.workers:
            yield from drainer.wait_until_empty()
        else:
            for count in range(len(description.workers) - 1, max_workers, -1):
                yield from self._end_one(description, drainer, (min(min_workers, count), count))
        if 0 < max_workers < len(description.workers):
            yield from self._end_one(description, drainer, workers)
        else:
            yield from self._scale_to(description, workers)
        yield from worker_waits.wait_until_ready(self._management, model, version)
        return _describe_scaling(model, workers)

    def set_default(self, model: str, version: str, force: bool) -> CallSequence[str]:
        """Set the default version. Raises Conflict if the version cannot answer, unless `force` is set."""
        if not force:
            description: Model = yield self._management.describe_one(model, version)
            if not description.ready:
                raise Conflict(
                    f"{model} {version} has no worker that is ready; the default version was not changed "
                    "(scale the version up first, or set --force)"
                )
            yield from worker_waits.wait_until_answered(model, version)
        sentence: str = yield self._management.set_default(model, version)
        return sentence

    def unregister(
        self, model: str, version: str | None, drain_timeout: float | None, force: bool
    ) -> CallSequence[str]:
        """Drain a version, unless `force` is set, and remove it. Names that cannot be in a URL are sent over gRPC."""
        management = management_for(self._management, model, version)
        if not force:
            description: Model = yield management.describe_one(model, version)
            yield from self._check_removable(management, description)
            yield from VersionDrainer(management, description, drain_timeout).wait_until_empty()
        sentence: str = yield management.unregister(model, version)
        return sentence

    def replace(
        self, model: str, archive: str, workers: int | None, drain_timeout: float | None
    ) -> CallSequence[str]:
        """Register a new version, make it the default version, and drain and remove the old version."""
        check_name(model)
        old: Model = yield self._management.describe_one(model, None)
        fields = {"model_name": model, "initial_workers": workers}
        new = yield from self._registration.register(archive, fields)
        if new is None:
            raise Conflict(f"{archive} was registered, but no new version of {model} is listed")
        yield from worker_waits.wait_until_loaded(self._management, new)
        worker_count = workers or max(old.min_workers, new.min_workers)
        if worker_count != new.min_workers:
            bounds = (worker_count, max(worker_count, new.max_workers))
            yield from self.scale(model, new.version, bounds, wait=True)
        yield from self.set_default(model, new.version, force=False)
        try:
            yield from self.unregister(model, old.version, drain_timeout, force=False)
        except Timeout as error:
            raise Timeout(
                f"{model} {new.version} is the default now, but the old version is still registered: {error.message}"
            ) from error
        return f"{model}: version {new.version} replaces {old.version}"

    def _check_removable(self, management: Management, description: Model) -> CallSequence[None]:
        """Raise Conflict if other versions exist beside a default version, which TorchServe then does not remove."""
        default: Model = yield management.describe_one(description.name, None)
        if default.version == description.version:
            versions: list[Model] = yield management.describe(description.name, "all", False)
            if len(versions) > 1:
                raise Conflict(
                    f"{description.name} {description.version} is the default version of several versions; make "
                    "another version the default first (set-default)"
                )

    def _end_one(
        self, description: Model, drainer: VersionDrainer, workers: tuple[int, int]
    ) -> CallSequence[None]:
        """End the last worker in TorchServe's list: hold it, then scale down by one."""
        current: Model = yield self._management.describe_one(description.name, description.version)
        if current.workers:
            yield from drainer.wait_until_worker_held(current.workers[-1].id)
        yield from self._scale_to(description, workers)

    def _scale_to(self, description: Model, workers: tuple[int, int]) -> CallSequence[None]:
        """Change the number of workers; repeat the call if TorchServe answers 500."""
        for attempt in range(SCALE_ATTEMPTS):
            try:
                yield self._management.scale(description.name, description.version, *workers)
                return
            except InternalError:
                if attempt == SCALE_ATTEMPTS - 1:
                    raise
                yield Pause(worker_waits.POLL_INTERVAL_S)


def _describe_scaling(model: str, workers: tuple[int, int]) -> str:
    min_workers, max_workers = workers
    count = str(min_workers) if min_workers == max_workers else f"{min_workers} to {max_workers}"
    return f"{model}: {count} workers"
