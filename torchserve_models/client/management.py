"""Calls of TorchServe's management API, over REST and over its gRPC service; both answer the same JSON."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torchserve_models.client.call_types import (
    Call,
    CallSequence,
    Resend,
    RestCall,
    build_path,
    build_rpc_call,
    import_stubs,
    map_result,
    read_json,
)
from torchserve_models.client.errors import InvalidParameter, UnexpectedAnswer
from torchserve_models.client.model_descriptions import Model, ModelEntry, Worker
from torchserve_models.client.names import check_present

MAX_PAGE_SIZE = 100
"""Maximum number of models per page of TorchServe's list."""


def read_models(body: bytes | str) -> list[Model]:
    """Read a list of model descriptions. Raises UnexpectedAnswer for any other answer."""
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
    """Return TorchServe's status message, which REST wraps in JSON and gRPC does not."""
    if isinstance(body, str):
        return body
    value = read_json(body)
    return str(value.get("status", "")) if isinstance(value, dict) else str(value)


class Management:
    """Calls of the management API over one protocol. `synchronous` is never set: over REST it blocks connections."""

    def describe(self, model: str, version: str | None, customized: bool) -> Call[list[Model]]:
        """Return the call that describes the versions of a model: one, or all for version "all"."""
        raise NotImplementedError

    def scale(self, model: str, version: str | None, min_workers: int, max_workers: int) -> Call[str]:
        """Return the call that sets the number of workers."""
        raise NotImplementedError

    def register(self, fields: Mapping[str, Any]) -> Call[str]:
        """Return the call that registers an archive."""
        raise NotImplementedError

    def set_default(self, model: str, version: str) -> Call[str]:
        """Return the call that sets the default version."""
        raise NotImplementedError

    def unregister(self, model: str, version: str | None) -> Call[str]:
        """Return the call that removes a version."""
        raise NotImplementedError

    def describe_one(self, model: str, version: str | None, customized: bool = False) -> Call[Model]:
        """Return the call that describes one version; the default version if None."""
        return map_result(self.describe(model, version, customized), _only)

    def describe_versions(self, model: str, resend: Resend = "always") -> CallSequence[list[Model]]:
        """Describe every version of a model. A second call tells which version is the default version.

        A version that became the default version between the two calls is part of the result.
        """
        versions: list[Model] = yield replace(self.describe(model, "all", False), resend=resend)
        if len(versions) == 1:
            return [replace(versions[0], default=True)]
        default: Model = yield replace(self.describe_one(model, None), resend=resend)
        by_version = {version.version: version for version in versions} | {default.version: default}
        return [
            replace(version, default=version.version == default.version) for version in by_version.values()
        ]

    def _page(self, limit: int, token: int) -> Call[tuple[list[ModelEntry], int | None]]:
        raise NotImplementedError

    def list_models(self) -> CallSequence[list[ModelEntry]]:
        """List the models of all pages."""
        entries: list[ModelEntry] = []
        token: int | None = 0
        while token is not None:
            page, following = yield self._page(MAX_PAGE_SIZE, token)
            entries += page
            token = following if following is not None and following > token else None
        return entries


class RestManagement(Management):
    """The calls over REST."""

    def describe(self, model: str, version: str | None, customized: bool) -> Call[list[Model]]:
        path = self._path(model, version, query={"customized": True} if customized else None)
        return RestCall("management", "GET", path, read_models)

    def scale(self, model: str, version: str | None, min_workers: int, max_workers: int) -> Call[str]:
        query = {"min_worker": min_workers, "max_worker": max_workers, "synchronous": False}
        return RestCall(
            "management", "PUT", self._path(model, version, query=query), _read_status, resend="unsent"
        )

    def register(self, fields: Mapping[str, Any]) -> Call[str]:
        path = build_path("models", query={**fields, "synchronous": False})
        return RestCall("management", "POST", path, _read_status, resend="unsent")

    def set_default(self, model: str, version: str) -> Call[str]:
        path = build_path("models", model, version, "set-default")
        return RestCall("management", "PUT", path, _read_status, resend="unsent")

    def unregister(self, model: str, version: str | None) -> Call[str]:
        return RestCall("management", "DELETE", self._path(model, version), _read_status, resend="unsent")

    def _page(self, limit: int, token: int) -> Call[tuple[list[ModelEntry], int | None]]:
        path = build_path("models", query={"limit": limit, "next_page_token": token})
        return RestCall("management", "GET", path, _read_page)

    def _path(self, model: str, version: str | None, query: Mapping[str, Any] | None = None) -> str:
        return build_path("models", model, *([version] if version is not None else []), query=query)


class GrpcManagement(Management):
    """The calls over gRPC, which also takes names that cannot be in a URL.

    TorchServe reads 0 as a number that is not set, so scaling to 0 requires REST.
    """

    service = "ManagementAPIsService"

    def describe(self, model: str, version: str | None, customized: bool) -> Call[list[Model]]:
        check_present(model, version)
        fields = {"model_name": model, "model_version": version, "customized": customized}
        return build_rpc_call(
            import_stubs("management"),
            self.service,
            "DescribeModel",
            fields,
            lambda answer: read_models(answer.msg),
        )

    def scale(self, model: str, version: str | None, min_workers: int, max_workers: int) -> Call[str]:
        if min_workers == 0 or max_workers == 0:
            raise InvalidParameter(
                "TorchServe's gRPC cannot scale to 0 workers: it reads 0 as not set; use REST"
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
        return build_rpc_call(
            import_stubs("management"),
            self.service,
            "ListModels",
            fields,
            lambda answer: _read_page(answer.msg),
        )

    def _change(self, method: str, fields: Mapping[str, Any]) -> Call[str]:
        check_present(fields.get("model_name"), fields.get("model_version"))
        return build_rpc_call(
            import_stubs("management"),
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
