"""What is served, as the management API and the handlers themselves say it."""

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
    """One model. `default_version` answers where a request names none.

    `metadata` is what the handler of that version says with customized=true: `inputs`, `outputs` and `parameters` of
    its own types, and where its weights come from. It is empty where there is no worker to ask, or the handler is not
    one of ours.
    """

    name: str
    versions: tuple[str, ...]
    default_version: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Descriptions:
    """Asks for them. What a handler has said of itself is kept, for the time in which its workers are too busy."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._known: dict[tuple[str, str], Mapping[str, Any]] = {}

    async def all(self) -> list[ModelDescription]:
        """All models that are registered, by name. Raises TorchServeError where TorchServe cannot be asked."""
        names = sorted(entry.name for entry in await self._client.list_models())
        for name in {known for known, _ in self._known} - set(names):
            self._forget(name)
        found = await asyncio.gather(*(self._or_none(name) for name in names))
        return [model for model in found if model is not None]

    async def one(self, name: str, version: str | None = None) -> ModelDescription:
        """Return a model with the metadata of `version`, or of its default version. Raises TorchServeError."""
        model, chosen = await self._find(name, version)
        return replace(model, metadata=await self._metadata(chosen))

    async def _or_none(self, name: str) -> ModelDescription | None:
        """A model may go between two questions; one whose workers do not answer is described without them."""
        try:
            model, chosen = await self._find(name)
        except ModelNotFound:
            return None
        try:
            return replace(model, metadata=await self._metadata(chosen))
        except ModelNotFound:
            return None
        except TorchServeError:
            return model

    async def _find(self, name: str, version: str | None = None) -> tuple[ModelDescription, Model]:
        """Without metadata, and the version whose metadata it should have."""
        try:
            every, default = await asyncio.gather(
                self._client.describe_versions(name), self._client.describe(name)
            )
        except (InvalidRequest, InvalidParameter) as error:  # a name that none can have
            raise ModelNotFound(f"Model not found: {name[:60]}") from error
        except ModelNotFound:
            self._forget(name)
            raise
        versions = tuple(model.version for model in every)
        self._forget(name, but=versions)
        wanted = default.version if version is None else version
        chosen = next((model for model in every if model.version == wanted), None)
        if chosen is None:
            raise ModelNotFound(f"Model version: {version} does not exist for model: {name}")
        return ModelDescription(name, versions, default.version), chosen

    async def _metadata(self, model: Model) -> Mapping[str, Any]:
        """A worker answers this in its turn, so that without one it is not asked, and not twice while others wait.

        TorchServe loses a batch when it meets this question in a queue that is full.
        """
        key = model.name, model.version
        if not any(worker.ready for worker in model.workers) or (model.queue_waiting and key in self._known):
            return self._known.get(key, {})
        try:
            said = (await self._client.describe(*key, customized=True)).metadata
        except ModelNotFound:
            raise
        except TorchServeError:
            if key in self._known:
                return self._known[key]
            raise
        metadata = said if isinstance(said, Mapping) else {}
        if metadata:
            self._known[key] = metadata
        return metadata

    def _forget(self, name: str, but: Collection[str] = ()) -> None:
        for key in [key for key in self._known if key[0] == name and key[1] not in but]:
            del self._known[key]
