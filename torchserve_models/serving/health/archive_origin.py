"""Origin of a running version, from its archive in the store or, if that is gone, from the worker."""

from dataclasses import dataclass
from pathlib import Path

from torchserve_models import client
from torchserve_models.client import Client, Endpoints
from torchserve_models.packing import PackingError, read_provenance
from torchserve_models.serving.archives.manifests import archive_version
from torchserve_models.serving.health.model_states import Model


@dataclass(frozen=True)
class Origin:
    """Weights, source and task; all None for archives not made by scripts/pack, which are not probed."""

    weights: str | None = None
    source: str | None = None
    task: str | None = None


def find_origin(endpoints: Endpoints, store: Path, model: Model, timeout: float) -> Origin | None:
    """Return the origin; None if the archive was replaced and no worker answers.

    A worker is asked for what it serves; that waits in the model's queue, for `timeout` seconds at most.
    """
    origin = read_archive_origin(store, model)
    return _describe_origin(endpoints, model, timeout) if origin is None else origin


def read_archive_origin(store: Path, model: Model) -> Origin | None:
    """Read the origin from the archive in the store; None if it is missing or of another version."""
    archive = store / model.archive
    try:
        provenance = read_provenance(archive)
        return (
            Origin(provenance.weights, provenance.source, provenance.task)
            if provenance.version == model.version
            else None
        )
    except PackingError:
        return Origin() if archive_version(archive) == model.version else None


def _describe_origin(endpoints: Endpoints, model: Model, timeout: float) -> Origin | None:
    try:
        with Client(endpoints=endpoints, timeout=timeout, retries=0) as connection:
            metadata = connection.describe(model.name, model.version, customized=True).metadata
    except client.TorchServeError:
        return None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("task"), str):
        return None
    return Origin(metadata.get("weights"), metadata.get("source"), metadata["task"])
