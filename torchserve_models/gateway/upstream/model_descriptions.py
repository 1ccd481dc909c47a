"""Descriptions of the registered models, from the management API and from their handlers."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torchserve_models.client import (
    AsyncClient,
    InvalidParameter,
    InvalidRequest,
    Model,
    ModelNotFound,
    TorchServeError,
)


@dataclass(frozen=True)
class ModelDescription:
    """One registered model.

    Attributes:
        name: The model's name.
        versions: All registered versions.
        default_version: The version for requests that do not name one.
        metadata: The handler's description (`customized=true`), such as `inputs`, `outputs`, `parameters` and the
            origin of the weights. Empty if no worker is ready, or the handler does not use this project's base class.
    """

    name: str
    versions: tuple[str, ...]
    default_version: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


class ModelDescriptions:
    """Descriptions of models. Each handler's metadata is cached in case its workers are too busy to respond later."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._metadata_cache: dict[tuple[str, str], Mapping[str, Any]] = {}

    async def fetch_all(self) -> list[ModelDescription]:
        """Return all registered models, sorted by name. Raises TorchServeError if TorchServe does not respond."""
        names = sorted(entry.name for entry in await self._client.list_models())
        for name in {cached for cached, _ in self._metadata_cache} - set(names):
            self._forget(name)
        descriptions = await asyncio.gather(*(self._describe_or_none(name) for name in names))
        return [description for description in descriptions if description is not None]

    async def fetch(self, name: str, version: str | None = None) -> ModelDescription:
        """Return a model with the metadata of `version`, or of its default version. Raises TorchServeError."""
        description, model = await self._find(name, version)
        return replace(description, metadata=await self._metadata(model))

    async def _describe_or_none(self, name: str) -> ModelDescription | None:
        """Return a description, without metadata if no worker responds; None if the model has been unregistered."""
        try:
            description, model = await self._find(name)
        except ModelNotFound:
            return None
        try:
            return replace(description, metadata=await self._metadata(model))
        except ModelNotFound:
            return None
        except TorchServeError:
            return description

    async def _find(self, name: str, version: str | None = None) -> tuple[ModelDescription, Model]:
        """Return a description without metadata, and the version that the metadata describes."""
        try:
            models = await self._client.describe_versions(name)
        except (InvalidRequest, InvalidParameter) as error:  # not a valid model name
            raise ModelNotFound(f"Model not found: {name[:60]}") from error
        except ModelNotFound:
            self._forget(name)
            raise
        versions = tuple(model.version for model in models)
        self._forget(name, except_versions=versions)
        default = next(model for model in models if model.default)
        model = default
        if version is not None:
            matching = [model for model in models if model.version == version]
            if not matching:
                raise ModelNotFound(f"Model version: {version} does not exist for model: {name}")
            model = matching[0]
        return ModelDescription(name, versions, default.version), model

    async def _metadata(self, model: Model) -> Mapping[str, Any]:
        """Return the handler's metadata.

        The request for it waits in the model's queue like a prediction, and TorchServe loses a batch if that queue is
        full. It is therefore only sent if a worker is ready, and not repeated while other requests wait.
        """
        key = model.name, model.version
        cache = self._metadata_cache
        if not any(worker.ready for worker in model.workers) or (model.queue_waiting and key in cache):
            return cache.get(key, {})
        try:
            response = (await self._client.describe(*key, customized=True)).metadata
        except ModelNotFound:
            raise
        except TorchServeError:
            if key in cache:
                return cache[key]
            raise
        metadata = response if isinstance(response, Mapping) else {}
        if metadata:
            cache[key] = metadata
        return metadata

    def _forget(self, name: str, except_versions: Collection[str] = ()) -> None:
        for key in [key for key in self._metadata_cache if key[0] == name and key[1] not in except_versions]:
            del self._metadata_cache[key]
