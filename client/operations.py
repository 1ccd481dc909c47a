"""Every operation as the call or calls that it takes: written once, run by the sync and the async client."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from client.calls import Call, Operation, Pause, Plan, mapped
from client.errors import (
    InvalidParameter,
    InvalidRequest,
    ServeError,
    ServerError,
    Timeout,
    TransportError,
    UnexpectedAnswer,
)
from client.inputs import Image, check_parameters, image_bytes, text_list
from client.management import GrpcManagement, RestManagement
from client.metrics import metrics_call
from client.native import NativeGrpc, NativeRest
from client.open_inference import OpenInferenceGrpc, OpenInferenceRest
from client.results import (
    Inference,
    Label,
    Metrics,
    Model,
    ModelEntry,
    ModelMetadata,
    Scalar,
    Summary,
    Tensor,
)
from client.settings import Protocol

POLL = 0.2  # seconds between two looks at workers that start
_REGISTERED = re.compile(r'Model "(?P<name>[^"]+)" Version: (?P<version>\S+) registered')

_TASKS: Mapping[str, NativeRest | NativeGrpc | OpenInferenceRest | OpenInferenceGrpc] = {
    "rest": NativeRest(),
    "grpc": NativeGrpc(),
    "open-inference": OpenInferenceRest(),
    "open-inference-grpc": OpenInferenceGrpc(),
}


class Operations:
    """`protocol` decides how the tasks travel, and with it whether management goes over REST or gRPC."""

    def __init__(self, protocol: Protocol) -> None:
        over_grpc = protocol in ("grpc", "open-inference-grpc")
        self._tasks = _TASKS[protocol]
        self._management = GrpcManagement() if over_grpc else RestManagement()
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
        return mapped(self._management.describe(model, version, customized), _only)

    def describe_versions(self, model: str) -> Operation[list[Model]]:
        return self._management.describe(model, "all", False)

    def scale(
        self, model: str, min_workers: int, max_workers: int | None, version: str | None, synchronous: bool
    ) -> Operation[str]:
        maximum = min_workers if max_workers is None else max_workers
        if not 0 <= min_workers <= maximum:
            raise InvalidParameter(
                f"workers from {min_workers} to {maximum}: it must be 0 <= minimum <= maximum"
            )
        call = self._management.scale(model, version, min_workers, maximum, synchronous)
        return self._scale_and_wait(call, model, version) if synchronous else call

    def register(self, archive: str, fields: Mapping[str, Any]) -> Operation[str]:
        if not archive:
            raise InvalidRequest("the name of the archive is empty")
        call = self._management.register({"url": archive, **fields})
        return self._register_and_wait(call) if fields.get("synchronous") else call

    def set_default(self, model: str, version: str) -> Operation[str]:
        return self._management.set_default(model, version)

    def unregister(self, model: str, version: str | None) -> Operation[str]:
        return self._management.unregister(model, version)

    def metrics(self, names: Sequence[str]) -> Operation[Metrics]:
        return metrics_call(names)

    def live(self) -> Plan[bool]:
        return _false_for(self._tasks.live(), TransportError, ServerError)

    def ready(self, model: str | None, version: str | None) -> Plan[bool]:
        """One describe a model: the front end's own health says nothing about the workers. Raises ModelNotFound."""
        try:
            if model is not None:
                names = [model]
            else:
                names = [entry.name for entry in (yield from self._management.list_models())]
            for name in names:
                described: Model = yield self._describe_now(name, version)
                if not described.ready:
                    return False
            return bool(names)
        except (TransportError, ServerError):
            return False

    def _scale_and_wait(self, call: Call[str], model: str, version: str | None) -> Plan[str]:
        sentence: str = yield call
        yield from self._until_ready(model, version)
        return sentence

    def _register_and_wait(self, call: Call[str]) -> Plan[str]:
        sentence: str = yield call
        found = _REGISTERED.match(sentence)  # only here is the name that the archive gave, and its version
        if found:
            yield from self._until_ready(found["name"], found["version"])
        return sentence

    def _until_ready(self, model: str, version: str | None) -> Plan[None]:
        """TorchServe itself waits for the first of several workers, and on a busy machine not even for that one."""
        found = "how many workers are ready is not known"
        try:
            while True:
                described: Model = yield mapped(self._management.describe(model, version, False), _only)
                if described.ready or described.min_workers == 0:
                    return
                ready = sum(worker.ready for worker in described.workers)
                found = f"{ready} of {described.min_workers} workers are ready"
                yield Pause(POLL)
        except Timeout as error:
            raise Timeout(f"the change was made, but {found}: {error.message}") from error

    def _describe_now(self, model: str, version: str | None) -> Call[Model]:
        return replace(mapped(self._management.describe(model, version, False), _only), resend="never")


def _false_for(call: Call[bool], *errors: type[ServeError]) -> Plan[bool]:
    try:
        answer: bool = yield call
        return answer
    except errors:
        return False


def _only(models: list[Model]) -> Model:
    if len(models) != 1:
        raise UnexpectedAnswer(f"expected the description of one version, got {len(models)}")
    return models[0]
