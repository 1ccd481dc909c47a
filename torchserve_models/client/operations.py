"""Every operation as the call or calls that it takes: written once, run by the sync and the async client."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torchserve_models.client.calls import Call, Operation, Plan
from torchserve_models.client.changes import Changes
from torchserve_models.client.errors import (
    InvalidParameter,
    InvalidRequest,
    ServerError,
    TorchServeError,
    TransportError,
)
from torchserve_models.client.inputs import Image, check_parameters, image_bytes, text_list
from torchserve_models.client.management import GrpcManagement, Management, RestManagement
from torchserve_models.client.metrics import metrics_call
from torchserve_models.client.names import is_addressable
from torchserve_models.client.native import NativeGrpc, NativeRest
from torchserve_models.client.open_inference import OpenInferenceGrpc, OpenInferenceRest
from torchserve_models.client.probes import readyz_call
from torchserve_models.client.recording import recorded
from torchserve_models.client.results import (
    Inference,
    Label,
    Metrics,
    Model,
    ModelEntry,
    ModelMetadata,
    Readiness,
    Scalar,
    Summary,
    Tensor,
)
from torchserve_models.client.settings import Settings

_TASKS: Mapping[str, NativeRest | NativeGrpc | OpenInferenceRest | OpenInferenceGrpc] = {
    "rest": NativeRest(),
    "grpc": NativeGrpc(),
    "open-inference": OpenInferenceRest(),
    "open-inference-grpc": OpenInferenceGrpc(),
}


class Operations:
    """`protocol` decides how the tasks travel, and with it whether management goes over REST or gRPC."""

    def __init__(self, settings: Settings) -> None:
        over_grpc = settings.protocol in ("grpc", "open-inference-grpc")
        self._endpoints = settings.endpoints
        self._tasks = _TASKS[settings.protocol]
        self._management: Management = GrpcManagement() if over_grpc else RestManagement()
        self._changes = Changes(settings.endpoints, over_grpc)
        self._open_inference = OpenInferenceGrpc() if over_grpc else OpenInferenceRest()

    def classify(
        self,
        model: str,
        image: Image,
        top_k: int | None,
        version: str | None,
        parameters: Mapping[str, Scalar | None],
    ) -> Operation[list[Label]]:
        given = check_parameters({"top_k": top_k, **parameters})
        return self._tasks.classify(model, image_bytes(image), given, version)

    def summarize(
        self,
        model: str,
        text: str | Sequence[str],
        version: str | None,
        parameters: Mapping[str, Scalar | None],
    ) -> Operation[list[Summary]]:
        return self._tasks.summarize(model, text_list(text), check_parameters(parameters), version)

    def infer(
        self,
        model: str,
        inputs: Sequence[Tensor],
        parameters: Mapping[str, Scalar | None] | None,
        version: str | None,
        id: str,
    ) -> Operation[Inference]:
        return self._open_inference.infer(model, inputs, check_parameters(parameters or {}), version, id)

    def server_live(self) -> Operation[bool]:
        return self._open_inference.live()

    def server_ready(self) -> Plan[bool]:
        """The gateway says no with 503."""
        return _false_for(self._open_inference.ready(), ServerError)

    def model_ready(self, model: str, version: str | None) -> Operation[bool]:
        """TorchServe has this and `model_metadata` in its gRPC service only."""
        return OpenInferenceGrpc().model_ready(model, version)

    def model_metadata(self, model: str, version: str | None) -> Operation[ModelMetadata]:
        return OpenInferenceGrpc().model_metadata(model, version)

    def list_models(self) -> Operation[list[ModelEntry]]:
        return self._management.list_models()

    def describe(self, model: str, version: str | None, customized: bool) -> Operation[Model]:
        if version == "all":
            raise InvalidRequest("'all' is no version; use describe_versions")
        return self._management.describe_one(model, version, customized)

    def describe_versions(self, model: str) -> Operation[list[Model]]:
        return self._management.describe(model, "all", False)

    def scale(
        self,
        model: str,
        workers: tuple[int, int | None],
        version: str | None,
        synchronous: bool,
        drain_timeout: float | None,
        force: bool,
    ) -> Operation[str]:
        least, most = workers
        wanted = (least, least if most is None else most)
        if not 0 <= wanted[0] <= wanted[1]:
            raise InvalidParameter(
                f"workers from {wanted[0]} to {wanted[1]}: it must be 0 <= minimum <= maximum"
            )
        _check_seconds(drain_timeout)
        if force or not synchronous:
            plan = self._changes.scale(model, version, wanted, wait=synchronous)
            return recorded(plan) if synchronous else plan
        return recorded(self._changes.scale_drained(model, version, wanted, drain_timeout))

    def register(self, archive: str, fields: Mapping[str, Any], synchronous: bool) -> Operation[str]:
        plan = self._changes.register(archive, fields, synchronous)
        return recorded(plan) if synchronous else plan

    def set_default(self, model: str, version: str, force: bool) -> Operation[str]:
        return recorded(self._changes.set_default(model, version, force))

    def unregister(
        self, model: str, version: str | None, drain_timeout: float | None, force: bool
    ) -> Operation[str]:
        return recorded(self._changes.unregister(model, version, _check_seconds(drain_timeout), force))

    def replace_model(
        self, model: str, archive: str, workers: int | None, drain_timeout: float | None
    ) -> Operation[str]:
        if workers is not None and workers < 1:
            raise InvalidParameter(f"workers must be at least 1, not {workers}")
        return recorded(self._changes.replace(model, archive, workers, _check_seconds(drain_timeout)))

    def metrics(self, names: Sequence[str]) -> Operation[Metrics]:
        return metrics_call(names)

    def live(self) -> Plan[bool]:
        return _false_for(self._tasks.live(), TransportError, ServerError)

    def ready(self, model: str | None, version: str | None) -> Plan[Readiness]:
        """One describe a model: the front end's own health says nothing about the workers. Raises ModelNotFound.

        Models with names that no client can ask for are left out. A gateway is asked for its own readiness.
        """
        try:
            if self._endpoints.is_gateway:
                yield readyz_call(model, version)
                return Readiness(True)
            if model is not None:
                names = [model]
            else:
                entries = yield from self._management.list_models()
                names = [entry.name for entry in entries if is_addressable(entry.name)]
            for name in names:
                described: Model = yield self._describe_now(name, version)
                if not described.ready:
                    return Readiness(False, _missing_workers(described))
            return Readiness(True) if names else Readiness(False, "no model is registered")
        except (TransportError, ServerError) as error:
            return Readiness(False, error.message)

    def _describe_now(self, model: str, version: str | None) -> Call[Model]:
        return replace(self._management.describe_one(model, version), resend="never")


def _missing_workers(model: Model) -> str:
    ready = sum(worker.ready for worker in model.workers)
    if not model.workers:
        return f"{model.name} {model.version} has no workers"
    return f"{model.name} {model.version}: {ready} of {max(model.min_workers, len(model.workers))} workers are READY"


def _false_for(call: Call[bool], *errors: type[TorchServeError]) -> Plan[bool]:
    try:
        answer: bool = yield call
        return answer
    except errors:
        return False


def _check_seconds(drain_timeout: float | None) -> float | None:
    if drain_timeout is not None and not drain_timeout >= 0:
        raise InvalidParameter(f"drain_timeout must be at least 0 seconds, not {drain_timeout}")
    return drain_timeout
