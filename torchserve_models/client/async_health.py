"""Health and metrics methods of the async client, documented in sync_health.py."""

from collections.abc import Sequence
from typing import TypeVar

from torchserve_models.client.call_types import Operation
from torchserve_models.client.model_descriptions import ModelMetadata
from torchserve_models.client.operations import Operations
from torchserve_models.client.results import Metrics, Readiness

T = TypeVar("T")


class AsyncHealthMethods:
    """Health and metrics methods, for a client with `_operations` and `_run`."""

    _operations: Operations

    async def live(self) -> bool:
        """Return whether the front end answers and reports that it is healthy. See `Client.live`."""
        return await self._run(self._operations.live())

    async def ready(
        self, model: str | None = None, version: str | None = None, *, strict: bool = False
    ) -> Readiness:
        """Return whether the server or a model can answer, and the reason if not. See `Client.ready`."""
        return await self._run(self._operations.ready(model, version, strict))

    async def server_live(self) -> bool:
        """Return the Open Inference Protocol's server liveness. See `Client.server_live`."""
        return await self._run(self._operations.server_live())

    async def server_ready(self) -> bool:
        """Return the Open Inference Protocol's server readiness. See `Client.server_ready`."""
        return await self._run(self._operations.server_ready())

    async def model_ready(self, model: str, version: str | None = None) -> bool:
        """Return the Open Inference Protocol's model readiness. See `Client.model_ready`."""
        return await self._run(self._operations.model_ready(model, version))

    async def model_metadata(self, model: str, version: str | None = None) -> ModelMetadata:
        """Return the Open Inference Protocol's metadata of a model. See `Client.model_metadata`."""
        return await self._run(self._operations.model_metadata(model, version))

    async def metrics(self, names: Sequence[str] = ()) -> Metrics:
        """Return the metrics of the server. See `Client.metrics`."""
        return await self._run(self._operations.metrics(names))

    async def _run(self, operation: Operation[T], timeout: float | None = None) -> T:
        raise NotImplementedError
