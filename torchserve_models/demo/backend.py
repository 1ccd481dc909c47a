"""Access of the pages to the server. All visitors and threads share one Backend."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torchserve_models.client import Client, Endpoints, Label, Model, TorchServeError
from torchserve_models.client.error_messages import START_HINT, explain, is_server_missing
from torchserve_models.client.settings import MAX_MESSAGE_BYTES
from torchserve_models.demo.catalog import IMAGES, Catalog, CatalogEntry
from torchserve_models.demo.traffic import TrafficMonitor, TrafficStats


@dataclass(frozen=True)
class ModelVersion:
    """A version of a model on the server page."""

    entry: CatalogEntry
    model: Model
    is_default: bool


@dataclass(frozen=True)
class Overview:
    """All models and their traffic.

    Attributes:
        traffic: Returns a model's traffic; None if the metrics API does not respond.
        problem: Why `traffic` is None.
    """

    models: Sequence[ModelVersion]
    traffic: Callable[[str], TrafficStats] | None
    problem: str


class Backend:
    """Predictions, models and metrics of one server."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self._client = Client(endpoints=endpoints, retries=3)
        # No retries: the page shows errors at once and refreshes soon.
        self._monitoring_client = Client(endpoints=endpoints, timeout=10, connect_timeout=2, retries=0)
        self._catalog = Catalog(self._monitoring_client)
        self._traffic_monitor = TrafficMonitor(self._monitoring_client.metrics)

    def check(self) -> None:
        """Check that the server responds. Raises TorchServeError."""
        self._monitoring_client.list_models()

    def models(self, task: str) -> list[str]:
        """Return the names of a task's models. Raises TorchServeError."""
        return self._catalog.names(task)

    def entry(self, name: str) -> CatalogEntry:
        """Return a model's entry in the catalog. Raises TorchServeError."""
        return self._catalog.entry(name)

    def classify(self, model: str, image: bytes, top_k: int = 5) -> list[Label]:
        """Return the `top_k` best labels, or all labels of a model with fewer labels. Raises TorchServeError."""
        entry = self._catalog.entry(model)
        allowed = int(entry.metadata.get("labels", top_k))
        # With a parameter, the file is sent as base64, and the largest possible file is smaller.
        parameters_to_send: dict[str, Any] = entry.drop_defaults({"top_k": min(top_k, allowed)})
        return self._client.classify(model, image, **parameters_to_send)

    def max_upload_bytes(self) -> int:
        """Return the size limit for image files: the model's or else the request's. Raises TorchServeError."""
        entries = [self.entry(name) for name in self.models(IMAGES)]
        limits = [int(entry.metadata["max_bytes"]) for entry in entries if "max_bytes" in entry.metadata]
        return min(max(limits, default=MAX_MESSAGE_BYTES), MAX_MESSAGE_BYTES)

    def summarize(self, model: str, text: str, **parameters: int) -> tuple[str, bool]:
        """Return the summary and whether the text was truncated. Raises TorchServeError."""
        parameters_to_send: dict[str, Any] = self._catalog.entry(model).drop_defaults(parameters)
        [summary] = self._client.summarize(model, text, **parameters_to_send)
        return summary.text, summary.truncated

    def overview(self) -> Overview:
        """Return all models and their traffic. Raises TorchServeError."""
        model_versions = []
        for entry in self._catalog.entries():
            versions = self._monitoring_client.describe_versions(entry.name)
            for model in sorted(versions, key=lambda model: model.version):
                is_default = model.version == entry.version
                model_versions.append(
                    ModelVersion(
                        entry if is_default else CatalogEntry(entry.name, model.version), model, is_default
                    )
                )
        try:
            return Overview(model_versions, self._traffic_monitor.snapshot(), "")
        except TorchServeError as error:
            return Overview(model_versions, None, error_text(error))

    def scale(self, model: str, workers: int) -> str:
        """Set a model's number of workers and return TorchServe's message. Raises TorchServeError."""
        return self._client.scale(model, workers)


def error_text(error: TorchServeError) -> str:
    """Return the server's error message, or instructions if no server responds."""
    return f"{explain(error)}. {START_HINT}" if is_server_missing(error) else explain(error)
