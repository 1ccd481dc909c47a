"""A fake of the context that TorchServe passes to a handler. It records responses and metrics."""

from collections import defaultdict
from pathlib import Path
from typing import Any


class RecordingMetric:
    def __init__(self) -> None:
        self.values: list[tuple[float, tuple[str, ...]]] = []

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        self.values.append((value, tuple(dimension_values)))


class RecordingCache:
    """A fake of TorchServe's metrics cache, which maps types to metrics by name."""

    def __init__(self) -> None:
        names = ["requests_total", "failed_items_total", "skipped_requests_total", "batch_size"]
        names += ["generated_tokens_total", "draft_tokens_total", "accepted_draft_tokens_total"]
        names += [
            "decode_seconds",
            "inference_seconds",
            "encode_seconds",
            "cpu_seconds_total",
            "memory_bytes",
        ]
        self.cache = {"any": {f"handler_{name}": RecordingMetric() for name in names}}

    def __getitem__(self, name: str) -> list[tuple[float, tuple[str, ...]]]:
        return self.cache["any"][name].values

    def clear(self) -> None:
        """Forget all values."""
        for metric in self.cache["any"].values():
            metric.values.clear()


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
