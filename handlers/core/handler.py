"""The adapter between TorchServe and the batch pipeline."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from handlers.core import repeated_fields, request_log
from handlers.core.config import server_setting
from handlers.core.device import Device
from handlers.core.metrics import WORKER_STARTS, Metrics
from handlers.core.pipeline import BatchPipeline, PipelineSettings, Response
from handlers.core.response_encoder import to_json
from handlers.core.task import Answer, Item, Task

logger = logging.getLogger(__name__)


class Handler(Task[Item, Answer]):
    """Base class of handlers. TorchServe calls `initialize` once and `handle` for each batch."""

    def initialize(self, context: Any) -> None:
        """Load the model from the archive's folder and warm up. Raises ConfigurationError and errors of `load`."""
        request_log.install()
        repeated_fields.install()
        version = str((context.manifest or {}).get("model", {}).get("modelVersion", ""))
        metrics = Metrics(context.metrics, context.model_name, version)
        metrics.add(WORKER_STARTS, 1)
        metrics.flush()  # before loading, which may fail
        properties = context.system_properties
        folder = Path(properties["model_dir"])
        settings = context.model_yaml_config or {}
        config = self.config_type.from_mapping(settings.get("handler"))
        workers = int(server_setting(settings, "minWorkers", 1))
        self._device = Device.choose(
            properties.get("gpu_id"),
            config,
            workers,
            self.bf16_flags,
            settings.get("deviceIds"),
            self.fp16_on_gpu,
        )
        self._device.apply()
        self.parallel_map = _parallel_map_over(self._device.pool() if self.parallel_decode else None)
        self.batch_size = int(properties.get("batch_size") or 1)
        provenance = folder / "provenance.json"
        self._provenance = json.loads(provenance.read_text()) if provenance.exists() else {}
        self.load(folder / "model", config, self._device)
        self._pipeline = BatchPipeline(
            self,
            PipelineSettings(
                context.model_name,
                version,
                config.max_items,
                server_setting(settings, "responseTimeout", 120),
            ),
            metrics,
        )
        self._pipeline.start()
        logger.info("%s is loaded: %s", context.model_name, self._origin())

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Return the response bodies of a batch. Sets statuses, content types and headers on `context`."""
        headers = [context.get_all_request_header(index) for index in range(len(data))]
        if len(data) == 1 and not data[0] and headers[0].get("describe") == "True":
            return [to_json(self.description())]
        responses = self._pipeline.run(data, headers)
        return [_write_response(response, index, context) for index, response in enumerate(responses)]

    def description(self) -> dict[str, Any]:
        """Return the model's description: provenance, device, engine, inputs, outputs and parameters."""
        return self._origin() | self._pipeline.describe()

    def _origin(self) -> dict[str, Any]:
        description = self._provenance | self._device.describe() | self.describe()
        if self._device.warning:
            description["reason"] = "; ".join(filter(None, (self._device.warning, description.get("reason"))))
        return description


def _parallel_map_over(pool: ThreadPoolExecutor | None) -> Callable[..., Iterable[Any]]:
    """Return a `map` that processes several inputs in the threads of a pool, with results in order."""

    def map_inputs(function: Callable[[Any], Any], inputs: Sequence[Any]) -> Iterable[Any]:
        return pool.map(function, inputs) if pool and len(inputs) > 1 else map(function, inputs)

    return map_inputs


def _write_response(response: Response, index: int, context: Any) -> bytes:
    """Set the response's status, content type and headers on `context`, and return its body."""
    if response.is_grpc:
        # Without this header, a StreamPredictions call kills the worker.
        context.set_response_header(index, "ts_stream_next", "false")
    if response.error is not None:
        context.set_response_status(response.error.code, response.error.type, index)
    context.set_response_content_type(index, response.content_type)
    for name, value in response.headers.items():
        context.set_response_header(index, name, value)
    return response.content
