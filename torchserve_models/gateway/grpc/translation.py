"""Translate ModelInfer messages to the Open Inference Protocol over REST with the binary data extension, and back.

`raw_input_contents` is used as the extension's binary data without conversion. TorchServe's gRPC service drops
these contents, parameters and requested outputs.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from handlers.core.errors import InvalidRequest, TooLarge
from handlers.core.open_inference_response import HEADER_LENGTH
from handlers.core.tensor import NUMPY_TYPES, pack_bytes, unpack_bytes
from torchserve_models.client import UnexpectedAnswer
from torchserve_models.client.call_types import build_path, import_stubs
from torchserve_models.gateway.grpc.message_bounds import MODEL_INFER_REQUEST, check_bounds
from torchserve_models.gateway.grpc.rest_calls import RestRequest, check_model_name

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of `contents` for each datatype. There is no field for FP16 and BF16."""
_WIDEST = {"i": np.int64, "u": np.uint64}
# Field numbers of InferParameter that Triton's proto has and TorchServe's does not.
_DOUBLE, _UINT64 = 4, 5


@dataclass(frozen=True)
class InferRequest(RestRequest):
    """A ModelInfer call over REST. `raw`: whether the response's tensors go into `raw_output_contents`."""

    raw: bool


def to_rest(content: bytes, max_bytes: int) -> InferRequest:
    """Translate a serialized ModelInferRequest. Raises InvalidRequest, TooLarge or ModelNotFound."""
    check_bounds(content, MODEL_INFER_REQUEST)
    try:
        message = import_stubs("open_inference_grpc").ModelInferRequest.FromString(content)
    except DecodeError:
        raise InvalidRequest("the message is not a ModelInferRequest") from None
    del content  # frees the memory, as the caller keeps no reference
    path = _path(message.model_name, message.model_version)
    raw = bool(message.raw_input_contents)
    contents = _raw_contents(message) if raw else [_pack(tensor) for tensor in message.inputs]
    header: dict[str, Any] = {
        "parameters": _parameters(message.parameters) | {"binary_data_output": True},
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": _parameters(tensor.parameters) | {"binary_data_size": len(data)},
            }
            for tensor, data in zip(message.inputs, contents, strict=True)
        ],
        "outputs": [
            {"name": output.name, "parameters": _parameters(output.parameters) | {"binary_data": True}}
            for output in message.outputs
        ],
    }
    if message.id:
        header["id"] = message.id
    text = json.dumps(header).encode()
    model, version = message.model_name, message.model_version
    message.Clear()
    body = b"".join([text, *contents])
    if len(body) > max_bytes:
        raise TooLarge(f"the tensors exceed {max_bytes >> 20} MiB")
    headers = {HEADER_LENGTH: str(len(text)), "content-type": "application/octet-stream"}
    return InferRequest(model, version, path, headers, body, raw)


def to_grpc(header_length: str, body: bytes, raw: bool, quotes_text: bool = False) -> bytes:
    """Translate a response of TorchServe to a serialized ModelInferResponse.

    Args:
        header_length: The response's Inference-Header-Content-Length; empty if the body is only JSON.
        body: The response's body.
        raw: Whether tensors go into `raw_output_contents` instead of `contents`.
        quotes_text: Whether BYTES elements in `contents` are JSON strings, as in TorchServe's own service.

    Raises:
        UnexpectedAnswer: The response does not follow the protocol.
    """
    length = int(header_length) if header_length else len(body)
    try:
        value = json.loads(body[:length])
        response = import_stubs("open_inference_grpc").ModelInferResponse(
            model_name=value["model_name"], model_version=value["model_version"], id=value["id"]
        )
        start = length
        for output in value["outputs"]:
            size = output["parameters"]["binary_data_size"]
            content, start = body[start : start + size], start + size
            tensor = response.outputs.add(
                name=output["name"], datatype=output["datatype"], shape=output["shape"]
            )
            if raw:
                response.raw_output_contents.append(content)
            else:
                _unpack(tensor, content, quotes_text)
    except (ValueError, KeyError, TypeError) as error:
        raise UnexpectedAnswer(
            f"the model's response does not follow the Open Inference Protocol: {error!r}"
        ) from error
    result: bytes = response.SerializeToString()
    return result


def _path(model: str, version: str) -> str:
    check_model_name(model, version)
    return (
        build_path("predictions", model, version) if version else build_path("v2", "models", model, "infer")
    )


def _raw_contents(message: Any) -> list[bytes]:
    contents = list(message.raw_input_contents)
    if len(contents) != len(message.inputs):
        raise InvalidRequest(
            f"the message has {len(contents)} raw_input_contents for {len(message.inputs)} inputs; send one per input"
        )
    if any(tensor.HasField("contents") for tensor in message.inputs):
        raise InvalidRequest(
            "an input has 'contents' in addition to raw_input_contents; send only one of the two"
        )
    return contents


def _pack(tensor: Any) -> bytes:
    """Return the elements in an input's `contents` as binary data."""
    label = f"the input '{tensor.name[:60]}'"
    present_fields = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if not present_fields and tensor.datatype in NUMPY_TYPES:
        return b""
    field = _FIELDS.get(tensor.datatype)
    if field is None:
        raise InvalidRequest(
            f"{label}: 'contents' has no field for the datatype {tensor.datatype[:20]!r}; send raw_input_contents, "
            f"or one of the datatypes {', '.join(_FIELDS)}"
        )
    if any(name != field for name in present_fields):
        raise InvalidRequest(f"{label}: elements of type {tensor.datatype} must be in '{field}'")
    values = getattr(tensor.contents, field)
    if field == "bytes_contents":
        return pack_bytes(list(values))
    dtype = NUMPY_TYPES[tensor.datatype]
    array = np.array(values, _WIDEST.get(dtype.kind, dtype))
    # A field's integers may be wider than the datatype, and numpy would wrap them around.
    if dtype.kind in _WIDEST:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise InvalidRequest(
                f"{label}: values must be from {limits.min} to {limits.max} ({tensor.datatype})"
            )
    return array.astype(dtype).tobytes()


def _unpack(tensor: Any, content: bytes, quotes_text: bool) -> None:
    values: Any
    if tensor.datatype == "BYTES":
        count = int(np.prod(tensor.shape, dtype=np.int64))
        values = unpack_bytes(memoryview(content), count)
        if quotes_text:
            values = [
                json.dumps(value.decode(errors="replace"), ensure_ascii=False).encode() for value in values
            ]
    else:
        values = np.frombuffer(content, NUMPY_TYPES[tensor.datatype]).tolist()
    getattr(tensor.contents, _FIELDS[tensor.datatype]).extend(values)


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _parameter(name, parameters[name]) for name in parameters}


def _parameter(name: str, parameter: Any) -> Any:
    field_name = parameter.WhichOneof("parameter_choice")
    if field_name:
        return getattr(parameter, field_name)
    unknown = UnknownFieldSet(parameter)
    for field in (unknown[index] for index in range(len(unknown))):
        if field.field_number == _DOUBLE and field.wire_type == 1:
            (number,) = struct.unpack("<d", struct.pack("<Q", field.data))
            return number
        if field.field_number == _UINT64 and field.wire_type == 0:
            return field.data
    raise InvalidRequest(f"the parameter '{name[:60]}' has no value; set one or remove the parameter")
