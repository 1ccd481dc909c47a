"""A fake of the context that TorchServe passes to a handler. It records responses and metrics."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from handlers.core.handler import Handler
from tests.conftest import ROOT

METRICS_CONFIG = ROOT / "torchserve_models" / "serving" / "metrics.yaml"


class RecordingMetric:
    """A fake of TorchServe's metric. `values` has the sum of each combination of labels."""

    def __init__(self, dimensions: list[str]) -> None:
        self.values: dict[tuple[str, ...], float] = defaultdict(float)
        self._dimensions = dimensions

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        assert len(dimension_values) == len(self._dimensions), f"{dimension_values} of {self._dimensions}"
        self.values[tuple(dimension_values)] += value


class RecordingCache:
    """A fake of TorchServe's metrics cache, which maps types to metrics by name, with the declared metrics."""

    def __init__(self) -> None:
        declared = yaml.safe_load(METRICS_CONFIG.read_text())["model_metrics"]
        self.cache = {
            kind: {entry["name"]: RecordingMetric(entry["dimensions"]) for entry in entries}
            for kind, entries in declared.items()
        }
        self._metrics = {name: metric for group in self.cache.values() for name, metric in group.items()}

    def __getitem__(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of a metric that are not 0, by the labels after the model's name and version."""
        return {labels[2:]: value for labels, value in self._metrics[name].values.items() if value}

    def models(self, name: str) -> set[tuple[str, ...]]:
        """Return the names and versions of models that have a metric."""
        return {labels[:2] for labels in self._metrics[name].values}

    def clear(self) -> None:
        """Forget all values."""
        for metric in self._metrics.values():
            metric.values.clear()


def flush_metrics(handler: Handler[Any, Any]) -> None:
    """Pass the handler's values to its metrics cache, which a thread does twice a second otherwise."""
    handler._pipeline._metrics.flush()


class FakeContext:
    """A fake context with the `statuses`, `types` and `response_headers` of the last batch's requests."""

    def __init__(
        self,
        model_dir: Path,
        yaml_config: dict[str, Any] | None = None,
        gpu_id: int | None = None,
        batch_size: int = 8,
        model_name: str = "model",
    ) -> None:
        self.model_name = model_name
        self.manifest = {"model": {"modelName": model_name, "modelVersion": "1.0"}}
        self.model_yaml_config = yaml_config or {}
        self.system_properties = {"model_dir": str(model_dir), "gpu_id": gpu_id, "batch_size": batch_size}
        self.metrics = RecordingCache()
        self.receive([])

    def receive(self, headers: list[dict[str, Any]]) -> None:
        """Set the request headers of the next batch."""
        self._headers = headers
        self.statuses: dict[int, int] = defaultdict(lambda: 200)
        self.types: dict[int, str] = {}
        self.response_headers: dict[int, dict[str, str]] = defaultdict(dict)

    def get_all_request_header(self, index: int) -> dict[str, Any]:
        return self._headers[index]

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        self.statuses[idx] = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.types[idx] = value

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self.response_headers[idx][key] = value
