"""The Open Inference Protocol, over REST (`/v2/...`) and over TorchServe's gRPC service of it.

The tasks become tensors here, once for both ways; `OpenInferenceRest` and `OpenInferenceGrpc` only carry tensors.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torchserve_models.client.calls import (
    Call,
    RestCall,
    mapped,
    path_of,
    read_json,
    rpc,
    stubs,
    write_json,
)
from torchserve_models.client.errors import InvalidParameter, InvalidRequest, UnexpectedAnswer, in_value
from torchserve_models.client.names import check_present
from torchserve_models.client.results import Inference, Label, ModelMetadata, Scalar, Summary, Tensor

Parameters = Mapping[str, Scalar]

# Field of InferTensorContents by datatype. FP16 and BF16 exist as raw contents only, which TorchServe drops.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def read_labels(answer: Inference) -> list[Label]:
    labels, scores = _column(answer, "label"), _column(answer, "score")
    return [Label(str(label), float(score)) for label, score in zip(labels, scores, strict=True)]


def read_summaries(answer: Inference) -> list[Summary]:
    texts, truncated = _column(answer, "summary_text"), _column(answer, "truncated")
    return [Summary(str(text), bool(flag)) for text, flag in zip(texts, truncated, strict=True)]


def _column(answer: Inference, name: str) -> tuple[Any, ...]:
    try:
        return answer.output(name).data
    except KeyError as error:
        raise UnexpectedAnswer(str(error.args[0])) from None


class _Tasks:
    """The tasks as tensors."""

    def infer(
        self, model: str, inputs: Sequence[Tensor], parameters: Parameters, version: str | None, id: str
    ) -> Call[Inference]:
        raise NotImplementedError

    def classify(
        self, model: str, image: bytes, parameters: Parameters, version: str | None
    ) -> Call[list[Label]]:
        inputs = [Tensor("image", "BYTES", (1,), (image,))]
        return mapped(self.infer(model, inputs, parameters, version, ""), read_labels)

    def summarize(
        self, model: str, texts: tuple[str, ...], parameters: Parameters, version: str | None
    ) -> Call[list[Summary]]:
        inputs = [Tensor("text", "BYTES", (len(texts),), texts)]
        return mapped(self.infer(model, inputs, parameters, version, ""), read_summaries)


class OpenInferenceRest(_Tasks):
    """JSON: bytes travel as base64 in a BYTES tensor, parameters as an object. TorchServe has no versions here."""

    def infer(
        self, model: str, inputs: Sequence[Tensor], parameters: Parameters, version: str | None, id: str
    ) -> Call[Inference]:
        if version is not None:
            raise InvalidRequest(
                "TorchServe's Open Inference REST route takes no version; use open-inference-grpc"
            )
        value: dict[str, Any] = {"inputs": [_tensor_json(tensor) for tensor in inputs]}
        if id:
            value["id"] = id
        if parameters:
            value["parameters"] = dict(parameters)
        path, headers = path_of("v2", "models", model, "infer"), {"content-type": "application/json"}
        body = write_json(value)
        return RestCall("inference", "POST", path, _read_json_inference, headers, body, carries_deadline=True)

    def live(self) -> Call[bool]:
        return RestCall("inference", "GET", path_of("v2", "health", "live"), _read_live, resend="never")

    def ready(self) -> Call[bool]:
        return RestCall("inference", "GET", path_of("v2", "health", "ready"), _read_ready, resend="never")


class OpenInferenceGrpc(_Tasks):
    """TorchServe drops `parameters`, so that they go as further tensors, each of one element."""

    service = "GRPCInferenceService"

    def infer(
        self, model: str, inputs: Sequence[Tensor], parameters: Parameters, version: str | None, id: str
    ) -> Call[Inference]:
        check_present(model, version)
        tensors = [*inputs, *(_parameter_tensor(name, value) for name, value in parameters.items())]
        fields = {
            "model_name": model,
            "model_version": version,
            "id": id,
            "inputs": [_tensor_message(tensor) for tensor in tensors],
        }
        return rpc(stubs("open_inference_grpc"), self.service, "ModelInfer", fields, _read_message_inference)

    def live(self) -> Call[bool]:
        return rpc(stubs("open_inference_grpc"), self.service, "ServerLive", {}, _is_live, resend="never")

    def ready(self) -> Call[bool]:
        return rpc(stubs("open_inference_grpc"), self.service, "ServerReady", {}, _is_ready, resend="never")

    def model_ready(self, model: str, version: str | None) -> Call[bool]:
        check_present(model, version)
        fields = {"name": model, "version": version}
        return rpc(
            stubs("open_inference_grpc"), self.service, "ModelReady", fields, _is_ready, resend="never"
        )

    def model_metadata(self, model: str, version: str | None) -> Call[ModelMetadata]:
        def read(answer: Any) -> ModelMetadata:
            return ModelMetadata(answer.name, tuple(answer.versions), answer.platform)

        check_present(model, version)
        fields = {"name": model, "version": version}
        return rpc(stubs("open_inference_grpc"), self.service, "ModelMetadata", fields, read)


def _tensor_json(tensor: Tensor) -> dict[str, Any]:
    data = [base64.b64encode(item).decode() if isinstance(item, bytes) else item for item in tensor.data]
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), "data": data}


def _tensor_message(tensor: Tensor) -> dict[str, Any]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise InvalidRequest(f"TorchServe's gRPC takes no {tensor.datatype}; known: {', '.join(_CONTENTS)}")
    data = [item.encode() if isinstance(item, str) else item for item in tensor.data]
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "contents": {field: data},
    }


def _parameter_tensor(name: str, value: Scalar) -> Tensor:
    for kind, datatype in ((bool, "BOOL"), (int, "INT64"), (float, "FP64"), (str, "BYTES")):
        if isinstance(value, kind):
            return Tensor(name, datatype, (1,), (value,))
    raise InvalidParameter(f"{name} must be a number, a boolean or a string")


def _read_json_inference(body: bytes) -> Inference:
    value = read_json(body)
    try:
        outputs = [
            Tensor(t["name"], t["datatype"], tuple(t["shape"]), tuple(t["data"])) for t in value["outputs"]
        ]
        return Inference(
            value["model_name"], value.get("model_version", ""), value.get("id", ""), tuple(outputs)
        )
    except (TypeError, KeyError, AttributeError):
        raise UnexpectedAnswer(f"expected an Open Inference answer, got {str(value)[:100]}") from None


def _read_message_inference(answer: Any) -> Inference:
    outputs = tuple(_read_message_tensor(tensor) for tensor in answer.outputs)
    if [tensor.name for tensor in outputs] == ["error"]:
        error = in_value(read_json(outputs[0].data[0])) if outputs[0].data else None
        if error:
            raise error
    return Inference(answer.model_name, answer.model_version, answer.id, outputs)


def _read_message_tensor(tensor: Any) -> Tensor:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise UnexpectedAnswer(f"the output {tensor.name!r} has the unknown datatype {tensor.datatype!r}")
    data = tuple(getattr(tensor.contents, field))
    if tensor.datatype == "BYTES":
        # TorchServe writes each element as the JSON it found, quotes included.
        data = tuple(_unquote(item) for item in data)
    return Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), data)


def _unquote(item: bytes) -> Any:
    try:
        return json.loads(item)
    except ValueError:
        return item


def _read_live(body: bytes) -> bool:
    value = read_json(body)
    return isinstance(value, dict) and value.get("live") is True


def _read_ready(body: bytes) -> bool:
    value = read_json(body)
    return isinstance(value, dict) and value.get("ready") is True


def _is_live(answer: Any) -> bool:
    return bool(answer.live)


def _is_ready(answer: Any) -> bool:
    return bool(answer.ready)
