"""TorchServe's management, over REST and over its gRPC service; both answer the same JSON."""

from collections.abc import Mapping
from typing import Any

from torchserve_models.client.calls import (
    Call,
    Plan,
    RestCall,
    mapped,
    path_of,
    read_json,
    rpc,
    stubs,
)
from torchserve_models.client.errors import InvalidParameter, UnexpectedAnswer
from torchserve_models.client.names import check_present
from torchserve_models.client.results import Model, ModelEntry, Worker

PAGE = 100  # TorchServe lists at most this many at once


def read_models(body: bytes | str) -> list[Model]:
    value = read_json(body)
    try:
        return [_model(item) for item in value]
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UnexpectedAnswer(
            f"expected a list of model descriptions ({error!r}), got {str(value)[:100]}"
        ) from None


def _model(item: Mapping[str, Any]) -> Model:
    queue = item.get("jobQueueStatus") or {}
    return Model(
        name=item["modelName"],
        version=item["modelVersion"],
        url=item.get("modelUrl", ""),
        min_workers=int(item["minWorkers"]),
        max_workers=int(item["maxWorkers"]),
        batch_size=int(item["batchSize"]),
        max_batch_delay=int(item["maxBatchDelay"]),
        response_timeout=int(item["responseTimeout"]),
        startup_timeout=int(item.get("startupTimeout", 0)),
        device_type=item.get("deviceType"),
        loaded_at_startup=bool(item.get("loadedAtStartup", False)),
        workers=tuple(_worker(worker) for worker in item.get("workers") or ()),
        queue_free=queue.get("remainingCapacity"),
        queue_waiting=queue.get("pendingRequests"),
        metadata=item.get("customizedMetadata"),
    )


def _worker(item: Mapping[str, Any]) -> Worker:
    return Worker(
        id=str(item["id"]),
        status=str(item["status"]),
        pid=int(item.get("pid", -1)),
        gpu=bool(item.get("gpu", False)),
        memory_bytes=int(item.get("memoryUsage", 0)),
        start_time=str(item.get("startTime", "")),
    )


def _read_page(body: bytes | str) -> tuple[list[ModelEntry], int | None]:
    value = read_json(body)
    try:
        entries = [ModelEntry(item["modelName"], item.get("modelUrl", "")) for item in value["models"]]
        token = value.get("nextPageToken")
        return entries, int(token) if token else None
    except (TypeError, KeyError, AttributeError, ValueError):
        raise UnexpectedAnswer(f"expected a list of models, got {str(value)[:100]}") from None


def _read_status(body: bytes | str) -> str:
    """REST wraps the sentence in JSON, gRPC sends it bare."""
    if isinstance(body, str):
        return body
    value = read_json(body)
    return str(value.get("status", "")) if isinstance(value, dict) else str(value)


class Management:
    """One way to the management API. `synchronous` is never asked for: over REST it blocks other connections."""

    def describe(self, model: str, version: str | None, customized: bool) -> Call[list[Model]]:
        raise NotImplementedError

    def scale(self, model: str, version: str | None, min_workers: int, max_workers: int) -> Call[str]:
        raise NotImplementedError

    def register(self, fields: Mapping[str, Any]) -> Call[str]:
        raise NotImplementedError

    def set_default(self, model: str, version: str) -> Call[str]:
        raise NotImplementedError

    def unregister(self, model: str, version: str | None) -> Call[str]:
        raise NotImplementedError

    def describe_one(self, model: str, version: str | None, customized: bool = False) -> Call[Model]:
        return mapped(self.describe(model, version, customized), _only)

    def _page(self, limit: int, token: int) -> Call[tuple[list[ModelEntry], int | None]]:
        raise NotImplementedError

    def list_models(self) -> Plan[list[ModelEntry]]:
        """All pages."""
        entries: list[ModelEntry] = []
        token: int | None = 0
        while token is not None:
            page, following = yield self._page(PAGE, token)
            entries += page
            token = following if following is not None and following > token else None
        return entries


class RestManagement(Management):
    def describe(self, model: str, version: str | None, customized: bool) -> Call[list[Model]]:
        path = self._path(model, version, query={"customized": True} if customized else None)
        return RestCall("management", "GET", path, read_models)

    def scale(self, model: str, version: str | None, min_workers: int, max_workers: int) -> Call[str]:
        query = {"min_worker": min_workers, "max_worker": max_workers, "synchronous": False}
        return RestCall(
            "management", "PUT", self._path(model, version, query=query), _read_status, resend="unsent"
        )

    def register(self, fields: Mapping[str, Any]) -> Call[str]:
        path = path_of("models", query={**fields, "synchronous": False})
        return RestCall("management", "POST", path, _read_status, resend="unsent")

    def set_default(self, model: str, version: str) -> Call[str]:
        path = path_of("models", model, version, "set-default")
        return RestCall("management", "PUT", path, _read_status, resend="unsent")

    def unregister(self, model: str, version: str | None) -> Call[str]:
        return RestCall("management", "DELETE", self._path(model, version), _read_status, resend="unsent")

    def _page(self, limit: int, token: int) -> Call[tuple[list[ModelEntry], int | None]]:
        path = path_of("models", query={"limit": limit, "next_page_token": token})
        return RestCall("management", "GET", path, _read_page)

    def _path(self, model: str, version: str | None, query: Mapping[str, Any] | None = None) -> str:
        return path_of("models", model, *([version] if version is not None else []), query=query)


class GrpcManagement(Management):
    """Names that cannot be in a URL can be used here.

    Its numbers have no "not set": TorchServe takes 0 for it, so that scaling to 0 has to go over REST.
    """

    service = "ManagementAPIsService"

    def describe(self, model: str, version: str | None, customized: bool) -> Call[list[Model]]:
        check_present(model, version)
        fields = {"model_name": model, "model_version": version, "customized": customized}
        return rpc(
            stubs("management"), self.service, "DescribeModel", fields, lambda answer: read_models(answer.msg)
        )

    def scale(self, model: str, version: str | None, min_workers: int, max_workers: int) -> Call[str]:
        if min_workers == 0 or max_workers == 0:
            raise InvalidParameter(
                "TorchServe's gRPC cannot scale to 0 workers: it reads 0 as not given; use REST"
            )
        fields = {
            "model_name": model,
            "model_version": version,
            "min_worker": min_workers,
            "max_worker": max_workers,
            "synchronous": False,
        }
        return self._change("ScaleWorker", fields)

    def register(self, fields: Mapping[str, Any]) -> Call[str]:
        return self._change("RegisterModel", {**fields, "synchronous": False})

    def set_default(self, model: str, version: str) -> Call[str]:
        return self._change("SetDefault", {"model_name": model, "model_version": version})

    def unregister(self, model: str, version: str | None) -> Call[str]:
        return self._change("UnregisterModel", {"model_name": model, "model_version": version})

    def _page(self, limit: int, token: int) -> Call[tuple[list[ModelEntry], int | None]]:
        fields = {"limit": limit, "next_page_token": token}
        return rpc(
            stubs("management"), self.service, "ListModels", fields, lambda answer: _read_page(answer.msg)
        )

    def _change(self, method: str, fields: Mapping[str, Any]) -> Call[str]:
        check_present(fields.get("model_name"), fields.get("model_version"))
        return rpc(
            stubs("management"),
            self.service,
            method,
            fields,
            lambda answer: _read_status(answer.msg),
            resend="unsent",
        )


def _only(models: list[Model]) -> Model:
    if len(models) != 1:
        raise UnexpectedAnswer(f"expected the description of one version, got {len(models)}")
    return models[0]
