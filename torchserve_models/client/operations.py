"""All operations, each as one call or a call sequence that the sync and the async client run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torchserve_models.client import readiness
from torchserve_models.client.call_types import Call, CallSequence, Operation, map_result
from torchserve_models.client.errors import (
    InvalidParameter,
    InvalidRequest,
    ServerError,
    TorchServeError,
    TransportError,
)
from torchserve_models.client.inputs import Image, check_parameters, image_bytes, text_list
from torchserve_models.client.management import GrpcManagement, Management, RestManagement
from torchserve_models.client.management_operations import ManagementOperations
from torchserve_models.client.metrics import metrics_call
from torchserve_models.client.model_descriptions import Model, ModelEntry, ModelMetadata
from torchserve_models.client.open_inference import OpenInferenceGrpc, OpenInferenceRest
from torchserve_models.client.results import Inference, Label, Metrics, Readiness, Scalar, Summary, Tensor
from torchserve_models.client.settings import Settings
from torchserve_models.client.snapshot_sync import run_and_await_snapshot
from torchserve_models.client.supervisor import readyz_call
from torchserve_models.client.torchserve_protocol import TorchServeGrpc, TorchServeRest

_TASKS: Mapping[str, TorchServeRest | TorchServeGrpc | OpenInferenceRest | OpenInferenceGrpc] = {
    "rest": TorchServeRest(),
    "grpc": TorchServeGrpc(),
    "open-inference": OpenInferenceRest(),
    "open-inference-grpc": OpenInferenceGrpc(),
}


class Operations:
    """The operations of one client, over the protocol of its settings."""

    def __init__(self, settings: Settings) -> None:
        over_grpc = settings.protocol in ("grpc", "open-inference-grpc")
        self._endpoints = settings.endpoints
        self._tasks = _TASKS[settings.protocol]
        self._management: Management = GrpcManagement() if over_grpc else RestManagement()
        self._management_operations = ManagementOperations(settings.endpoints, over_grpc)
        self._open_inference = OpenInferenceGrpc() if over_grpc else OpenInferenceRest()

    def classify(
        self,
        model: str,
        image: Image,
        top_k: int | None,
        version: str | None,
        parameters: Mapping[str, Scalar | None],
    ) -> Operation[list[Label]]:
        checked = check_parameters({"top_k": top_k, **parameters})
        return self._tasks.classify(model, image_bytes(image), checked, version)

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

    def server_ready(self) -> CallSequence[bool]:
        """Return whether the server is ready. A gateway that is not ready answers 503."""
        return _false_for(self._open_inference.ready(), ServerError)

    def model_ready(self, model: str, version: str | None) -> Operation[bool]:
        """Return whether the model is ready, over gRPC, because TorchServe's REST API has no such route."""
        return OpenInferenceGrpc().model_ready(model, version)

    def model_metadata(self, model: str, version: str | None) -> Operation[ModelMetadata]:
        return OpenInferenceGrpc().model_metadata(model, version)

    def list_models(self) -> Operation[list[ModelEntry]]:
        return self._management.list_models()

    def describe(self, model: str, version: str | None, customized: bool) -> Operation[Model]:
        if version == "all":
            raise InvalidRequest("'all' is not a version; use describe_versions")
        call = self._management.describe_one(model, version, customized)
        return call if version is not None else map_result(call, _as_default)

    def describe_versions(self, model: str) -> Operation[list[Model]]:
        return self._management.describe_versions(model)

    def scale(
        self,
        model: str,
        workers: tuple[int, int | None],
        version: str | None,
        synchronous: bool,
        drain_timeout: float | None,
        force: bool,
    ) -> Operation[str]:
        min_workers, max_workers = workers
        bounds = (min_workers, min_workers if max_workers is None else max_workers)
        if not 0 <= bounds[0] <= bounds[1]:
            raise InvalidParameter(
                f"min_workers={bounds[0]} and max_workers={bounds[1]}: they must be 0 <= min_workers <= max_workers"
            )
        _check_seconds(drain_timeout)
        if force or not synchronous:
            call_sequence = self._management_operations.scale(model, version, bounds, wait=synchronous)
            return run_and_await_snapshot(call_sequence) if synchronous else call_sequence
        return run_and_await_snapshot(
            self._management_operations.scale_drained(model, version, bounds, drain_timeout)
        )

    def register(self, archive: str, fields: Mapping[str, Any], synchronous: bool) -> Operation[str]:
        call_sequence = self._management_operations.register(archive, fields, synchronous)
        return run_and_await_snapshot(call_sequence) if synchronous else call_sequence

    def set_default(self, model: str, version: str, force: bool) -> Operation[str]:
        return run_and_await_snapshot(self._management_operations.set_default(model, version, force))

    def unregister(
        self, model: str, version: str | None, drain_timeout: float | None, force: bool
    ) -> Operation[str]:
        return run_and_await_snapshot(
            self._management_operations.unregister(model, version, _check_seconds(drain_timeout), force)
        )

    def replace_model(
        self, model: str, archive: str, workers: int | None, drain_timeout: float | None
    ) -> Operation[str]:
        if workers is not None and workers < 1:
            raise InvalidParameter(f"workers must be at least 1, not {workers}")
        return run_and_await_snapshot(
            self._management_operations.replace(model, archive, workers, _check_seconds(drain_timeout))
        )

    def metrics(self, names: Sequence[str]) -> Operation[Metrics]:
        return metrics_call(names)

    def live(self) -> CallSequence[bool]:
        return _false_for(self._tasks.live(), TransportError, ServerError)

    def ready(self, model: str | None, version: str | None, strict: bool) -> CallSequence[Readiness]:
        """Return the readiness that a gateway reports, or derive it from TorchServe's descriptions."""
        if version is not None and model is None:
            raise InvalidRequest("a version needs the name of its model")
        try:
            if self._endpoints.is_gateway:
                yield readyz_call(model, version, strict)
                return Readiness(True)
            state = yield from self._describe_server(model, version, strict)
        except (TransportError, ServerError) as error:
            return Readiness(False, error.message)
        report = readiness.judge(state)
        problem = report.problem(strict) if model is None else report.model_problem(model, version, strict)
        return Readiness(problem is None, problem or "")

    def _describe_server(
        self, model: str | None, version: str | None, strict: bool
    ) -> CallSequence[readiness.ServerState]:
        """Describe one version; without `model`, all default versions, or all versions if `strict` is set."""
        if model is not None:
            described: Model = yield self._describe_now(model, version)
            return readiness.ServerState([described.state])
        versions: list[readiness.VersionState] = []
        undescribed: dict[str, str] = {}
        for entry in (yield from self._management.list_models()):
            try:
                if strict:
                    models = yield from self._management.describe_versions(entry.name, resend="never")
                else:
                    models = [(yield self._describe_now(entry.name, None))]
                versions += [described.state for described in models]
            except TransportError:
                raise
            except TorchServeError as error:
                undescribed[entry.name] = error.message
        return readiness.ServerState(versions, undescribed)

    def _describe_now(self, model: str, version: str | None) -> Call[Model]:
        return replace(self._management.describe_one(model, version), resend="never")


def _as_default(model: Model) -> Model:
    return replace(model, default=True)


def _false_for(call: Call[bool], *errors: type[TorchServeError]) -> CallSequence[bool]:
    try:
        answer: bool = yield call
        return answer
    except errors:
        return False


def _check_seconds(drain_timeout: float | None) -> float | None:
    if drain_timeout is not None and not drain_timeout >= 0:
        raise InvalidParameter(f"drain_timeout must be at least 0 seconds, not {drain_timeout}")
    return drain_timeout
