"""The Open Inference Protocol's JSON: tensors in, tensors out.

TorchServe's gRPC service turns a ModelInferRequest into this JSON (BYTES in base64, `parameters` dropped) and reads
the answer back from JSON. There a reply without `id`, `model_name`, `model_version` or `outputs` kills the worker,
so that an error, too, has to be a whole reply.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handlers.core.errors import InvalidRequest, ServingError
from handlers.core.reply import Writer
from handlers.core.tensor import Payload, Tensor

NUMPY_TYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


@dataclass(frozen=True)
class OpenInferenceReply:
    """`wanted` are the outputs the request selected; none means all."""

    id: str
    model_name: str
    model_version: str
    grpc: bool = False
    wanted: tuple[str, ...] = ()

    def answer(self, writer: Writer, answers: Sequence[Any]) -> Any:
        tensors = {tensor.name: tensor for tensor in writer.outputs(answers)}
        for name in self.wanted:
            if name not in tensors:
                raise InvalidRequest(f"unknown output '{name[:60]}'; this model has: {', '.join(tensors)}")
        return self._whole([tensors[name] for name in self.wanted or tensors])

    def error(self, error: ServingError) -> Any:
        if self.grpc:
            text = json.dumps(error.as_dict())
            return self._whole([Tensor("error", "BYTES", (1,), [text])])
        return error.as_dict()

    def _whole(self, tensors: list[Tensor]) -> dict[str, Any]:
        return {
            "id": self.id,
            "model_name": self.model_name,
            "model_version": self.model_version,
            "outputs": [tensor.as_dict() for tensor in tensors],
        }


def wanted_outputs(message: Mapping[str, Any]) -> tuple[str, ...]:
    """The outputs that the request selects. Raises InvalidRequest."""
    return tuple(_name(output) for output in _list(message, "outputs"))


def read_inputs(
    message: Mapping[str, Any], payload_fields: tuple[str, ...], grpc: bool
) -> tuple[tuple[Payload, ...], dict[str, Any]]:
    """Payloads and parameters. Raises InvalidRequest.

    Parameters are the request's and the input's `parameters`, and further one-element tensors under a parameter's
    name: the only way through TorchServe's gRPC, which drops `parameters`.
    """
    parameters = dict(_mapping(message, "parameters"))
    payloads: tuple[Payload, ...] | None = None
    seen: set[str] = set()
    for tensor in _list(message, "inputs"):
        name = _name(tensor)
        if name in seen:
            raise InvalidRequest(f"two inputs are named '{name[:60]}'")
        seen.add(name)
        if name not in payload_fields:
            parameters[name] = _parameter(name, tensor, grpc)
        elif payloads is not None:
            raise InvalidRequest(f"several inputs: send one of '{', '.join(payload_fields)}'")
        else:
            own = dict(_mapping(tensor, "parameters"))
            is_base64 = own.pop("content_type", "") == "base64" or grpc
            parameters |= own
            payloads = _payloads(name, tensor, is_base64)
    if payloads is None:
        raise InvalidRequest(f"no input: expected a tensor named '{payload_fields[0]}'")
    return payloads, parameters


def _payloads(name: str, tensor: Mapping[str, Any], is_base64: bool) -> tuple[Payload, ...]:
    """BYTES: one payload an element. Numbers: one array, or of four axes one for each of the first."""
    datatype, shape, data = _tensor(name, tensor)
    if datatype == "BYTES":
        if not data:
            raise InvalidRequest(f"the input '{name}' is empty")
        return tuple(_unbase64(name, item) if is_base64 else item for item in data)
    try:
        array = np.asarray(data, dtype=NUMPY_TYPES[datatype]).reshape(shape)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"the input '{name}': its data do not fit {datatype} of that shape") from None
    return tuple(array) if array.ndim == 4 else (array,)


def _parameter(name: str, tensor: Mapping[str, Any], is_base64: bool) -> Any:
    datatype, _, data = _tensor(name, tensor)
    if len(data) != 1:
        raise InvalidRequest(f"the parameter '{name[:60]}' must be a tensor of one element, not {len(data)}")
    if datatype == "BYTES" and is_base64:
        return _unbase64(name, data[0]).decode(errors="replace")
    return data[0]


def _tensor(name: str, tensor: Mapping[str, Any]) -> tuple[str, tuple[int, ...], list[Any]]:
    """The checked datatype, shape and flat data. Raises InvalidRequest."""
    label = f"the input '{name[:60]}'"
    datatype, shape = tensor.get("datatype"), _shape(label, tensor.get("shape"))
    if datatype != "BYTES" and datatype not in NUMPY_TYPES:
        raise InvalidRequest(
            f"{label}: unknown datatype {str(datatype)[:20]!r}; known: BYTES, {', '.join(NUMPY_TYPES)}"
        )
    if not isinstance(tensor.get("data"), list):
        raise InvalidRequest(f"{label}: 'data' must be a list")
    data = _flatten(tensor["data"])
    if math.prod(shape) != len(data):
        raise InvalidRequest(
            f"{label}: the shape {list(shape)} has {math.prod(shape)} elements, the data {len(data)}"
        )
    _check_elements(label, datatype, data)
    return datatype, shape, data


def _shape(label: str, shape: Any) -> tuple[int, ...]:
    if isinstance(shape, list) and len(shape) <= 8 and all(type(n) is int and 0 <= n < 2**31 for n in shape):
        return tuple(shape)
    raise InvalidRequest(f"{label}: 'shape' must be a list of at most 8 integers from 0 to 2^31 - 1")


def _check_elements(label: str, datatype: str, data: list[Any]) -> None:
    if datatype == "BYTES":
        allowed: tuple[type, ...] = (str,)
    elif datatype == "BOOL":
        allowed = (bool,)
    else:
        allowed = (int, float) if datatype.startswith("FP") else (int,)
    kinds = set(map(type, data))
    if not kinds <= set(allowed):
        wrong = next(item for item in data if type(item) not in allowed)
        raise InvalidRequest(f"{label}: {str(wrong)[:30]!r} is no element of {datatype}")
    if datatype.startswith(("INT", "UINT")) and data:
        limits = np.iinfo(NUMPY_TYPES[datatype])  # type: ignore[type-var]
        if min(data) < limits.min or max(data) > limits.max:
            raise InvalidRequest(f"{label}: {datatype} takes {limits.min} to {limits.max}")


def _flatten(data: list[Any]) -> list[Any]:
    """Nested lists flatten in row-major order, as the protocol allows."""
    while data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            break
        data = [item for row in data for item in row]
    return data


def _unbase64(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"the input '{name}': an element is not base64") from None


def _name(tensor: Any) -> str:
    if not isinstance(tensor, Mapping) or not isinstance(tensor.get("name"), str) or not tensor["name"]:
        raise InvalidRequest("every input and output must be an object with a 'name'")
    return str(tensor["name"])


def _mapping(message: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = message.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise InvalidRequest(f"the field '{key}' must be an object")
    return value or {}


def _list(message: Mapping[str, Any], key: str) -> list[Any]:
    value = message.get(key)
    if value is not None and not isinstance(value, list):
        raise InvalidRequest(f"the field '{key}' must be a list")
    return value or []
