"""The Open Inference Protocol, over REST (`/v2/...`) and over TorchServe's gRPC service.

`_Tasks` converts tasks to tensors; `OpenInferenceRest` and `OpenInferenceGrpc` send the tensors.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torchserve_models.client.call_types import (
    Call,
    RestCall,
    build_path,
    build_rpc_call,
    encode_json,
    import_stubs,
    map_result,
    read_json,
)
from torchserve_models.client.error_conversion import error_from_payload
from torchserve_models.client.errors import InvalidParameter, InvalidRequest, UnexpectedAnswer
from torchserve_models.client.model_descriptions import ModelMetadata
from torchserve_models.client.names import check_present
from torchserve_models.client.results import Inference, Label, Scalar, Summary, Tensor

Parameters = Mapping[str, Scalar]

# Field of InferTensorContents by datatype. FP16 and BF16 exist as raw contents only, which TorchServe drops.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def read_labels(answer: Inference) -> list[Label]:
    """Read the output tensors of an image classifier. Raises UnexpectedAnswer if one is missing."""
    labels, scores = _column(answer, "label"), _column(answer, "score")
    return [Label(str(label), float(score)) for label, score in zip(labels, scores, strict=True)]


def read_summaries(answer: Inference) -> list[Summary]:
    """Read the output tensors of a summarizer. Raises UnexpectedAnswer if one is missing."""
    texts, truncated = _column(answer, "summary_text"), _column(answer, "truncated")
    return [Summary(str(text), bool(flag)) for text, flag in zip(texts, truncated, strict=True)]


def _column(answer: Inference, name: str) -> tuple[Any, ...]:
    try:
        return answer.output(name).data
    except KeyError as error:
        raise UnexpectedAnswer(str(error.args[0])) from None


class _Tasks:
    """Conversion of the tasks to inferences with tensors."""

    def infer(
        self, model: str, inputs: Sequence[Tensor], parameters: Parameters, version: str | None, id: str
    ) -> Call[Inference]:
        raise NotImplementedError

    def classify(
        self, model: str, image: bytes, parameters: Parameters, version: str | None
    ) -> Call[list[Label]]:
        inputs = [Tensor("image", "BYTES", (1,), (image,))]
        return map_result(self.infer(model, inputs, parameters, version, ""), read_labels)

    def summarize(
        self, model: str, texts: tuple[str, ...], parameters: Parameters, version: str | None
    ) -> Call[list[Summary]]:
        inputs = [Tensor("text", "BYTES", (len(texts),), texts)]
        return map_result(self.infer(model, inputs, parameters, version, ""), read_summaries)


class OpenInferenceRest(_Tasks):
    """Inference over REST. Bytes are sent as base64 in a BYTES tensor. TorchServe's route takes no version."""

    def infer(
        self, model: str, inputs: Sequence[Tensor], parameters: Parameters, version: str | None, id: str
    ) -> Call[Inference]:
        if version is not None:
            raise InvalidRequest(
                "TorchServe's Open Inference REST route takes no version; set the protocol to open-inference-grpc"
            )
        value: dict[str, Any] = {"inputs": [_tensor_json(tensor) for tensor in inputs]}
        if id:
            value["id"] = id
        if parameters:
            value["parameters"] = dict(parameters)
        path, headers = build_path("v2", "models", model, "infer"), {"content-type": "application/json"}
        body = encode_json(value)
        return RestCall("inference", "POST", path, _read_json_inference, headers, body, carries_deadline=True)

    def live(self) -> Call[bool]:
        return RestCall("inference", "GET", build_path("v2", "health", "live"), _read_live, resend="never")

    def ready(self) -> Call[bool]:
        return RestCall("inference", "GET", build_path("v2", "health", "ready"), _read_ready, resend="never")


class OpenInferenceGrpc(_Tasks):
    """Inference over gRPC. Parameters are sent as tensors of one element, because TorchServe drops `parameters`."""

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
        return build_rpc_call(
            import_stubs("open_inference_grpc"), self.service, "ModelInfer", fields, _read_message_inference
        )

    def live(self) -> Call[bool]:
        return build_rpc_call(
            import_stubs("open_inference_grpc"), self.service, "ServerLive", {}, _is_live, resend="never"
        )

    def ready(self) -> Call[bool]:
        return build_rpc_call(
            import_stubs("open_inference_grpc"), self.service, "ServerReady", {}, _is_ready, resend="never"
        )

    def model_ready(self, model: str, version: str | None) -> Call[bool]:
        check_present(model, version)
        fields = {"name": model, "version": version}
        return build_rpc_call(
            import_stubs("open_inference_grpc"), self.service, "ModelReady", fields, _is_ready, resend="never"
        )

    def model_metadata(self, model: str, version: str | None) -> Call[ModelMetadata]:
        def read(answer: Any) -> ModelMetadata:
            return ModelMetadata(answer.name, tuple(answer.versions), answer.platform)

        check_present(model, version)
        fields = {"name": model, "version": version}
        return build_rpc_call(
            import_stubs("open_inference_grpc"), self.service, "ModelMetadata", fields, read
        )


def _tensor_json(tensor: Tensor) -> dict[str, Any]:
    data = [base64.b64encode(item).decode() if isinstance(item, bytes) else item for item in tensor.data]
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), "data": data}


def _tensor_message(tensor: Tensor) -> dict[str, Any]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise InvalidRequest(
            f"TorchServe's gRPC does not accept {tensor.datatype}; use one of {', '.join(_CONTENTS)}"
        )
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
        error = error_from_payload(read_json(outputs[0].data[0])) if outputs[0].data else None
        if error:
            raise error
    return Inference(answer.model_name, answer.model_version, answer.id, outputs)


def _read_message_tensor(tensor: Any) -> Tensor:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise UnexpectedAnswer(f"the output {tensor.name!r} has the unknown datatype {tensor.datatype!r}")
    data = tuple(getattr(tensor.contents, field))
    if tensor.datatype == "BYTES":
        # TorchServe writes each element as JSON, quotes included.
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
