"""The management methods of the sync client; the async client has the same ones."""

from typing import TypeVar

from torchserve_models.client.call_types import Operation
from torchserve_models.client.model_descriptions import Model, ModelEntry
from torchserve_models.client.operations import Operations

T = TypeVar("T")


class ManagementMethods:
    """Management methods, for a client with `_operations` and `_run`."""

    _operations: Operations

    def list_models(self) -> list[ModelEntry]:
        """Return every registered model."""
        return self._run(self._operations.list_models())

    def describe(self, model: str, version: str | None = None, customized: bool = False) -> Model:
        """Describe one version of a model.

        Args:
            model: The model's name.
            version: The model's version; its default version if None.
            customized: Add the handler's metadata. This request waits in the model's queue.

        Returns:
            The description, with its workers and its queue.

        Raises:
            ModelNotFound: The model or version does not exist.
        """
        return self._run(self._operations.describe(model, version, customized))

    def describe_versions(self, model: str) -> list[Model]:
        """Describe every version of a model.

        Args:
            model: The model's name.

        Returns:
            A description of each version, with `default` set.

        Raises:
            ModelNotFound: The model does not exist.
        """
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

        Surplus workers are ended one by one, each as soon as it is idle, or after `drain_timeout` in any case. Its
        request then gets 500 `Worker died.`, which the proxy or the client sends again once. Scaling to 0 takes a
        version out of service: it is drained first, and nothing is changed if that takes longer.

        Args:
            model: The model's name.
            min_workers: Number of workers that the version should have.
            max_workers: Largest number of workers; `min_workers` if None.
            version: The model's version; its default version if None.
            synchronous: Wait until the workers are ready. False sends one call, drains nothing and returns at once.
            drain_timeout: Seconds to wait for idle workers; the model's response timeout if None.
            force: End surplus workers at once.
            timeout: Seconds for the whole operation; the client's timeout if None.

        Returns:
            A sentence that describes the change.

        Raises:
            Timeout: The workers are not ready, or the version is not drained (for 0 workers), in time.
            TorchServeError: Another error of client/errors.py.
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
        """Register an archive of the model store. Its model-config.yaml takes precedence over the arguments.

        If a worker ends while it loads, the version is removed again. Other models answer as usual meanwhile.

        Args:
            archive: The archive's file name, such as `resnet-50.mar`.
            model_name: The model's name; the name in the archive if None.
            initial_workers: Number of workers to start.
            batch_size: Largest number of requests in a batch.
            max_batch_delay: Milliseconds that a batch may wait for further requests.
            response_timeout: Seconds after which TorchServe ends a worker that does not answer.
            startup_timeout: Seconds that a worker may take to load.
            handler: A handler to use instead of the archive's.
            synchronous: Wait until the workers are ready.
            timeout: Seconds for the whole operation; the client's timeout if None.

        Returns:
            A sentence that names the model and its version.

        Raises:
            InvalidRequest: The name is not valid in requests of clients.
            Conflict: The version is already registered.
            InternalError: A worker ended while it loaded.
            Timeout: It is registered, but its workers are not ready in time.
            TorchServeError: Another error of client/errors.py.
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
        """Make a version the default version, which answers requests without a version.

        Args:
            model: The model's name.
            version: The version that becomes the default version.
            force: Set it even if the version has no ready worker.

        Returns:
            A sentence of TorchServe that describes the change.

        Raises:
            Conflict: The version has no ready worker.
            TorchServeError: Another error of client/errors.py.
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
        """Remove a version once its queue is empty and its workers are idle.

        TorchServe never answers requests that are queued at a version when it is removed.

        Args:
            model: The model's name.
            version: The version; the default version if None. TorchServe removes the default version last.
            drain_timeout: Seconds to wait for the queue and the workers; the model's response timeout if None.
            force: Remove it at once, together with the requests that it has.
            timeout: Seconds for the whole operation; the client's timeout if None.

        Returns:
            A sentence of TorchServe that describes the change.

        Raises:
            Timeout: The version still has requests; it was not removed.
            Conflict: It is the default version and other versions exist.
            TorchServeError: Another error of client/errors.py.
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
            archive: The archive's file name in the model store. Its version must not be registered yet.
            workers: Workers of the new version; if None, the larger worker count of both versions.
            drain_timeout: Seconds to wait until the old version is idle; its response timeout if None.
            timeout: Seconds for the whole operation; the client's timeout if None.

        Returns:
            A sentence that names both versions.

        Raises:
            InternalError: A worker of the new version ended while it loaded; the new version was removed again.
            Timeout: The message names the completed steps.
            TorchServeError: Another error of client/errors.py.
        """
        operation = self._operations.replace_model(model, archive, workers, drain_timeout)
        return self._run(operation, timeout)

    def _run(self, operation: Operation[T], timeout: float | None = None) -> T:
        raise NotImplementedError
