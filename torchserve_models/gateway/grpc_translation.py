"""ModelInfer's messages as the Open Inference Protocol over REST, with the binary data extension, and back.

`raw_input_contents` are that extension's binary data as they are. TorchServe's own gRPC service drops them, and
parameters and selected outputs.
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
from handlers.core.tensor import NUMPY_TYPES, pack_bytes, unpack_bytes
from torchserve_models.client import ModelNotFound, UnexpectedAnswer
from torchserve_models.client.calls import path_of, stubs
from torchserve_models.client.names import is_addressable
from torchserve_models.gateway.grpc_bounds import check_bounds

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
"""Where a tensor's elements are in `contents`; FP16 and BF16 have no field."""
_WIDEST = {"i": np.int64, "u": np.uint64}
# Of an InferParameter: Triton's proto has two kinds more than TorchServe's.
_DOUBLE, _UINT64 = 4, 5


@dataclass(frozen=True)
class RestRequest:
    """`header_length`: the bytes of JSON at the start of `body`. `raw`: whether the answer's tensors go raw, too."""

    model: str
    path: str
    header_length: int
    body: bytes
    raw: bool


def to_rest(content: bytes, max_bytes: int) -> RestRequest:
    """Translate a serialized ModelInferRequest. Raises InvalidRequest, TooLarge or ModelNotFound."""
    check_bounds(content)
    try:
        message = stubs("open_inference_grpc").ModelInferRequest.FromString(content)
    except DecodeError:
        raise InvalidRequest("the message is not a ModelInferRequest") from None
    del content  # its memory: the caller keeps no reference
    path = _path(message.model_name, message.model_version)
    raw = bool(message.raw_input_contents)
    contents = _raw_contents(message) if raw else [_packed(tensor) for tensor in message.inputs]
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
    model = message.model_name
    message.Clear()
    body = b"".join([text, *contents])
    if len(body) > max_bytes:
        raise TooLarge(f"the tensors take more than {max_bytes >> 20} MiB")
    return RestRequest(model, path, len(text), body, raw)


def to_grpc(header_length: str, body: bytes, raw: bool) -> bytes:
    """Translate the answer to a serialized ModelInferResponse. Raises UnexpectedAnswer.

    Args:
        header_length: The answer's Inference-Header-Content-Length; empty where it is JSON alone.
        body: The answer's body.
        raw: Whether tensors go into `raw_output_contents`, or into `contents`.
    """
    length = int(header_length) if header_length else len(body)
    try:
        value = json.loads(body[:length])
        response = stubs("open_inference_grpc").ModelInferResponse(
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
                _unpack(tensor, content)
    except (ValueError, KeyError, TypeError) as error:
        raise UnexpectedAnswer(
            f"the model does not answer by the Open Inference Protocol ({error!r})"
        ) from error
    result: bytes = response.SerializeToString()
    return result


def _path(model: str, version: str) -> str:
    for name in filter(None, (model, version)):
        if not is_addressable(name):  # no URL of TorchServe can have it
            raise ModelNotFound(f"Model not found: {name[:60]}")
    return path_of("predictions", model, version) if version else path_of("v2", "models", model, "infer")


def _raw_contents(message: Any) -> list[bytes]:
    contents = list(message.raw_input_contents)
    if len(contents) != len(message.inputs):
        raise InvalidRequest(
            f"there are {len(contents)} raw_input_contents for {len(message.inputs)} inputs; each input needs one"
        )
    if any(tensor.HasField("contents") for tensor in message.inputs):
        raise InvalidRequest("an input has 'contents' beside raw_input_contents; send one of the two")
    return contents


def _packed(tensor: Any) -> bytes:
    """The elements of an input's `contents`, as binary data."""
    label = f"the input '{tensor.name[:60]}'"
    given = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if not given and tensor.datatype in NUMPY_TYPES:
        return b""
    field = _FIELDS.get(tensor.datatype)
    if field is None:
        known = ", ".join(_FIELDS)
        raise InvalidRequest(
            f"{label}: 'contents' have no field for {tensor.datatype[:20]!r}; send it in raw_input_contents, or as "
            f"one of {known}"
        )
    if any(name != field for name in given):
        raise InvalidRequest(f"{label}: the elements of {tensor.datatype} belong into '{field}'")
    values = getattr(tensor.contents, field)
    if field == "bytes_contents":
        return pack_bytes(list(values))
    dtype = NUMPY_TYPES[tensor.datatype]
    array = np.array(values, _WIDEST.get(dtype.kind, dtype))
    if (
        dtype.kind in _WIDEST
    ):  # fields hold wider integers than their datatypes, which numpy would wrap around
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise InvalidRequest(f"{label}: a number is outside the range of {tensor.datatype}")
    return array.astype(dtype).tobytes()


def _unpack(tensor: Any, content: bytes) -> None:
    values: Any
    if tensor.datatype == "BYTES":
        count = int(np.prod(tensor.shape, dtype=np.int64))
        values = unpack_bytes(memoryview(content), count)
    else:
        values = np.frombuffer(content, NUMPY_TYPES[tensor.datatype]).tolist()
    getattr(tensor.contents, _FIELDS[tensor.datatype]).extend(values)


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _parameter(name, parameters[name]) for name in parameters}


def _parameter(name: str, parameter: Any) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    if kind:
        return getattr(parameter, kind)
    unknown = UnknownFieldSet(parameter)
    for field in (unknown[index] for index in range(len(unknown))):
        if field.field_number == _DOUBLE and field.wire_type == 1:
            (number,) = struct.unpack("<d", struct.pack("<Q", field.data))
            return number
        if field.field_number == _UINT64 and field.wire_type == 0:
            return field.data
    raise InvalidRequest(f"the parameter '{name[:60]}' has no value")
