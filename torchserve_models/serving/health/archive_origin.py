"""Origin of a running version: read from its archive in the store; without archive, requested from a worker."""

from dataclasses import dataclass
from pathlib import Path

from torchserve_models import client
from torchserve_models.client import Client, Endpoints
from torchserve_models.packing import PackingError, read_provenance
from torchserve_models.serving.archives.manifests import archive_version
from torchserve_models.serving.health.model_states import ObservedVersion


@dataclass(frozen=True)
class ArchiveOrigin:
    """Weights, source and task of an archive; all None (and no probes) if scripts/pack did not create it."""

    weights: str | None = None
    source: str | None = None
    task: str | None = None


def find_origin(
    endpoints: Endpoints, store: Path, model: ObservedVersion, timeout: float
) -> ArchiveOrigin | None:
    """Return the origin of a version; None if its archive was replaced and no worker answers.

    A replaced archive is followed by a describe request to a worker, which waits in the model's queue for at most
    `timeout` seconds.
    """
    origin = read_archive_origin(store, model)
    return _describe_origin(endpoints, model, timeout) if origin is None else origin


def read_archive_origin(store: Path, model: ObservedVersion) -> ArchiveOrigin | None:
    """Read the origin from the archive in the store; None if the archive is missing or has another version."""
    archive = store / model.archive
    try:
        provenance = read_provenance(archive)
        return (
            ArchiveOrigin(provenance.weights, provenance.source, provenance.task)
            if provenance.version == model.version
            else None
        )
    except PackingError:
        return ArchiveOrigin() if archive_version(archive) == model.version else None


def _describe_origin(endpoints: Endpoints, model: ObservedVersion, timeout: float) -> ArchiveOrigin | None:
    try:
        with Client(endpoints=endpoints, timeout=timeout, retries=0) as connection:
            metadata = connection.describe(model.name, model.version, customized=True).metadata
    except client.TorchServeError:
        return None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("task"), str):
        return None
    return ArchiveOrigin(metadata.get("weights"), metadata.get("source"), metadata["task"])
