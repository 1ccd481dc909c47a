"""Management methods of the async client, documented in sync_management.py."""

from typing import TypeVar

from torchserve_models.client.call_types import Operation
from torchserve_models.client.model_descriptions import Model, ModelEntry
from torchserve_models.client.operations import Operations

T = TypeVar("T")


class AsyncManagementMethods:
    """Management methods, for a client with `_operations` and `_run`."""

    _operations: Operations

    async def list_models(self) -> list[ModelEntry]:
        """Return every registered model. See `Client.list_models`."""
        return await self._run(self._operations.list_models())

    async def describe(self, model: str, version: str | None = None, customized: bool = False) -> Model:
        """Describe one version of a model. See `Client.describe`."""
        return await self._run(self._operations.describe(model, version, customized))

    async def describe_versions(self, model: str) -> list[Model]:
        """Describe every version of a model. See `Client.describe_versions`."""
        return await self._run(self._operations.describe_versions(model))

    async def scale(
        self,
        model: str,
        min_workers: int,
        max_workers: int | None = None,
        version: str | None = None,
        synchronous: bool = True,
        *,
        drain_timeout: float | None = None,
        force: bool = False,
        timeout: float | None = None,
    ) -> str:
        """Change the number of workers. See `Client.scale`."""
        workers = (min_workers, max_workers)
        operation = self._operations.scale(model, workers, version, synchronous, drain_timeout, force)
        return await self._run(operation, timeout)

    async def register(
        self,
        archive: str,
        *,
        model_name: str | None = None,
        initial_workers: int | None = None,
        batch_size: int | None = None,
        max_batch_delay: int | None = None,
        response_timeout: int | None = None,
        startup_timeout: int | None = None,
        handler: str | None = None,
        synchronous: bool = True,
        timeout: float | None = None,
    ) -> str:
        """Register an archive of the model store. See `Client.register`."""
        fields = {
            "model_name": model_name,
            "initial_workers": initial_workers,
            "batch_size": batch_size,
            "max_batch_delay": max_batch_delay,
            "response_timeout": response_timeout,
            "startup_timeout": startup_timeout,
            "handler": handler,
        }
        return await self._run(self._operations.register(archive, fields, synchronous), timeout)

    async def set_default(self, model: str, version: str, *, force: bool = False) -> str:
        """Make a version the default version. See `Client.set_default`."""
        return await self._run(self._operations.set_default(model, version, force))

    async def unregister(
        self,
        model: str,
        version: str | None = None,
        *,
        drain_timeout: float | None = None,
        force: bool = False,
        timeout: float | None = None,
    ) -> str:
        """Remove a version once its queue is empty and its workers are idle. See `Client.unregister`."""
        operation = self._operations.unregister(model, version, drain_timeout, force)
        return await self._run(operation, timeout)

    async def replace_model(
        self,
        model: str,
        archive: str,
        *,
        workers: int | None = None,
        drain_timeout: float | None = None,
        timeout: float | None = None,
    ) -> str:
        """Replace a model's default version, without losing a request. See `Client.replace_model`."""
        operation = self._operations.replace_model(model, archive, workers, drain_timeout)
        return await self._run(operation, timeout)

    async def _run(self, operation: Operation[T], timeout: float | None = None) -> T:
        raise NotImplementedError
