"""What is served, as the management API and the handlers themselves say it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from client import AsyncClient, InvalidParameter, InvalidRequest, Model, ModelNotFound, ServeError


@dataclass(frozen=True)
class Described:
    """One model. `default_version` answers where a request names none.

    `metadata` is what the handler of that version says with customized=true: `inputs`, `outputs` and `parameters` of
    its own types, and where its weights come from. It is empty where no worker could be asked, or the handler is not
    one of ours.
    """

    name: str
    versions: tuple[str, ...]
    default_version: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


async def described(client: AsyncClient) -> list[Described]:
    """All models that are registered, by name. Raises ServeError where TorchServe cannot be asked."""
    names = sorted(entry.name for entry in await client.list_models())
    found = await asyncio.gather(*(_or_none(client, name) for name in names))
    return [model for model in found if model is not None]


async def describe(client: AsyncClient, name: str, version: str | None = None) -> Described:
    """One model; `metadata` is that version's, or the default one's. Raises ModelNotFound, ServeError."""
    try:
        every, default = await asyncio.gather(client.describe_versions(name), client.describe(name))
    except (InvalidRequest, InvalidParameter) as error:  # a name that none can have
        raise ModelNotFound(f"Model not found: {name[:60]}") from error
    versions = tuple(model.version for model in every)
    if version is None:
        chosen: Model | None = default
    else:
        chosen = next((model for model in every if model.version == version), None)
    if chosen is None:
        raise ModelNotFound(f"Model version: {version} does not exist for model: {name}")
    return Described(name, versions, default.version, await _metadata(client, chosen))


async def _or_none(client: AsyncClient, name: str) -> Described | None:
    """A model may go between two questions."""
    try:
        return await describe(client, name)
    except ModelNotFound:
        return None


async def _metadata(client: AsyncClient, model: Model) -> Mapping[str, Any]:
    """A worker answers this in its turn, so that without one there is no asking."""
    if not any(worker.ready for worker in model.workers):
        return {}
    try:
        metadata = (await client.describe(model.name, model.version, customized=True)).metadata
    except ServeError:
        return {}
    return metadata if isinstance(metadata, Mapping) else {}
