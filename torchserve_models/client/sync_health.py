"""Health and metrics methods of the sync client; the async client has the same ones."""

from collections.abc import Sequence
from typing import TypeVar

from torchserve_models.client.call_types import Operation
from torchserve_models.client.model_descriptions import ModelMetadata
from torchserve_models.client.operations import Operations
from torchserve_models.client.results import Metrics, Readiness

T = TypeVar("T")


class HealthMethods:
    """Health and metrics methods, for a client with `_operations` and `_run`."""

    _operations: Operations

    def live(self) -> bool:
        """Return whether the front end answers and reports that it is healthy, even while models load."""
        return self._run(self._operations.live())

    def ready(
        self, model: str | None = None, version: str | None = None, *, strict: bool = False
    ) -> Readiness:
        """Return whether the server or a model can answer, and the reason if not.

        A version is ready when at least one of its workers is READY. The server is ready when the default version of
        every model is, except models that are scaled to 0. A gateway answers as its `/readyz` does.

        Args:
            model: The model's name; the whole server if None.
            version: The model's version; its default version if None.
            strict: Require full strength: all workers that each version should have.

        Returns:
            Readiness: A boolean with a `reason`.

        Raises:
            ModelNotFound: The model or version does not exist.
            InvalidRequest: A version was passed without a model.
        """
        return self._run(self._operations.ready(model, version, strict))

    def server_live(self) -> bool:
        """Return the Open Inference Protocol's server liveness; TorchServe's is true as soon as it answers."""
        return self._run(self._operations.server_live())

    def server_ready(self) -> bool:
        """Return the Open Inference Protocol's server readiness; TorchServe's is true as soon as it answers."""
        return self._run(self._operations.server_ready())

    def model_ready(self, model: str, version: str | None = None) -> bool:
        """Return the Open Inference Protocol's model readiness over gRPC, because TorchServe lacks the REST route.

        Args:
            model: The model's name.
            version: The model's version; its default version if None.
        """
        return self._run(self._operations.model_ready(model, version))

    def model_metadata(self, model: str, version: str | None = None) -> ModelMetadata:
        """Return the Open Inference Protocol's model metadata over gRPC, because TorchServe lacks the REST route.

        Args:
            model: The model's name.
            version: The model's version; its default version if None.

        Raises:
            ModelNotFound: The model or version does not exist.
        """
        return self._run(self._operations.model_metadata(model, version))

    def metrics(self, names: Sequence[str] = ()) -> Metrics:
        """Return the metrics of the server.

        Args:
            names: Names of the metrics to return, with `_total` for counters; all metrics if empty.
        """
        return self._run(self._operations.metrics(names))

    def _run(self, operation: Operation[T], timeout: float | None = None) -> T:
        raise NotImplementedError
