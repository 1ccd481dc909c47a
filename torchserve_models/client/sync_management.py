"""The management methods of the sync client; the async client has the same ones."""

from typing import TypeVar

from torchserve_models.client.calls import Operation
from torchserve_models.client.operations import Operations
from torchserve_models.client.results import Model, ModelEntry

T = TypeVar("T")


class ManagementMethods:
    """Every method runs an operation of `_operations`, through `_run` of the client."""

    _operations: Operations

    def list_models(self) -> list[ModelEntry]:
        """Every registered model."""
        return self._run(self._operations.list_models())

    def describe(self, model: str, version: str | None = None, customized: bool = False) -> Model:
        """One version, the default one if none is named. `customized` asks a worker for its metadata as well."""
        return self._run(self._operations.describe(model, version, customized))

    def describe_versions(self, model: str) -> list[Model]:
        """Every version of a model."""
        return self._run(self._operations.describe_versions(model))

    def scale(
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
        """Change the number of workers.

        Surplus workers are ended one by one, each while it is idle, or after `drain_timeout` anyway: the request that
        it had then gets 500 `Worker died.`, which the proxy or the client sends again once. Scaling to 0 takes a
        version out of service: it is drained first, and nothing is changed if that takes longer.

        Args:
            model: The model's name.
            min_workers: How many workers are started.
            max_workers: How many may be there; `min_workers` if None.
            version: The model's version; its default version if None.
            synchronous: Wait until the workers are ready. False sends one call, drains nothing and returns at once.
            drain_timeout: Seconds to wait for idle workers; the model's response timeout if None.
            force: End surplus workers at once.
            timeout: Seconds for the whole operation; the client's timeout if None.

        Returns:
            A sentence that says what was done.

        Raises:
            Timeout: The workers are not ready, or the version is not drained (for 0 workers), in time.
            TorchServeError: See client.errors.
        """
        workers = (min_workers, max_workers)
        operation = self._operations.scale(model, workers, version, synchronous, drain_timeout, force)
        return self._run(operation, timeout)

    def register(
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
        """Register an archive by its name in the model store. What its model-config.yaml says wins.

        If a worker ends while it loads, the version is removed again. Other models answer as usual meanwhile.

        Args:
            archive: The archive's file name, such as `resnet-50.mar`.
            model_name: The model's name; the archive's own if None.
            initial_workers: How many workers are started.
            batch_size: How many requests a batch may have.
            max_batch_delay: Milliseconds that a batch may wait for further requests.
            response_timeout: Seconds after which TorchServe ends a worker that does not answer.
            startup_timeout: Seconds that a worker may take to load.
            handler: Another handler than the archive's.
            synchronous: Wait until the workers are ready.
            timeout: Seconds for the whole operation; the client's timeout if None.

        Returns:
            A sentence that names the model and its version.

        Raises:
            InvalidRequest: The name is not one that a client can ask for.
            Conflict: That version is registered already.
            InternalError: A worker ended while it loaded.
            Timeout: It is registered, but its workers are not ready in time.
            TorchServeError: See client.errors.
        """
        fields = {
            "model_name": model_name,
            "initial_workers": initial_workers,
            "batch_size": batch_size,
            "max_batch_delay": max_batch_delay,
            "response_timeout": response_timeout,
            "startup_timeout": startup_timeout,
            "handler": handler,
        }
        return self._run(self._operations.register(archive, fields, synchronous), timeout)

    def set_default(self, model: str, version: str, *, force: bool = False) -> str:
        """Make that version the one that answers where none is named.

        Args:
            model: The model's name.
            version: The version.
            force: Also if the version has no worker that is ready.

        Returns:
            TorchServe's sentence.

        Raises:
            Conflict: The version has no worker that is ready.
            TorchServeError: See client.errors.
        """
        return self._run(self._operations.set_default(model, version, force))

    def unregister(
        self,
        model: str,
        version: str | None = None,
        *,
        drain_timeout: float | None = None,
        force: bool = False,
        timeout: float | None = None,
    ) -> str:
        """Remove a version after its queue is empty and its workers are idle.

        TorchServe never answers what is queued at a version that is removed, so that nothing is removed before.

        Args:
            model: The model's name.
            version: The version; the default version if None, which TorchServe removes only if it is the last one.
            drain_timeout: Seconds to wait for that; the model's response timeout if None.
            force: Remove it at once, with the requests that it has.
            timeout: Seconds for the whole operation; the client's timeout if None.

        Returns:
            TorchServe's sentence.

        Raises:
            Timeout: The version still has requests; it was not removed.
            Conflict: It is the default version and there are others.
            TorchServeError: See client.errors.
        """
        operation = self._operations.unregister(model, version, drain_timeout, force)
        return self._run(operation, timeout)

    def replace_model(
        self,
        model: str,
        archive: str,
        *,
        workers: int | None = None,
        drain_timeout: float | None = None,
        timeout: float | None = None,
    ) -> str:
        """Replace a model's default version by the one in an archive, without losing a request.

        The new version is registered beside the old one. When its workers are ready it becomes the default, the old
        version is drained and removed. Until then both need memory.

        Args:
            model: The model's name.
            archive: The archive's file name in the model store; its version must be a new one.
            workers: Workers of the new version; as many as the old one has, or as it asks for itself, if None.
            drain_timeout: Seconds to wait until the old version is idle; its response timeout if None.
            timeout: Seconds for the whole operation; the client's timeout if None.

        Returns:
            A sentence that names both versions.

        Raises:
            InternalError: A worker of the new version ended while it loaded; the new version was removed again.
            Timeout: The message says what was reached.
            TorchServeError: See client.errors.
        """
        operation = self._operations.replace_model(model, archive, workers, drain_timeout)
        return self._run(operation, timeout)

    def _run(self, operation: Operation[T], timeout: float | None = None) -> T:
        raise NotImplementedError
