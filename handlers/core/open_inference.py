"""Parse requests of the Open Inference Protocol, in JSON or with the binary data extension.

TorchServe's gRPC service converts a ModelInferRequest to JSON. It encodes BYTES in base64, and drops `parameters`,
`outputs` and `raw_input_contents`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import numpy as np

from handlers.core.errors import InvalidParameter, InvalidRequest
from handlers.core.ignored_parameters import (
    BASE64_CONTENT_TYPES,
    CONTENT_TYPE,
    HEADERS,
    OPEN_INFERENCE,
    drop_ignored,
)
from handlers.core.json_detection import looks_like_json
from handlers.core.open_inference_response import HEADER_LENGTH, RequestedOutput
from handlers.core.open_inference_tensors import (
    TensorValues,
    decode_base64_element,
    parse_values,
    tensor_name,
)
from handlers.core.parameters import format_value
from handlers.core.raw_parameters import merge_parameters
from handlers.core.tensor import Payload

GRPC_OUTPUTS = "outputs"
"""Name of the input that selects outputs over gRPC, where TorchServe drops the field `outputs`."""


@dataclass(frozen=True)
class InferRequest:
    """A parsed request.

    Attributes:
        payloads: The elements of the input tensor.
        parameters: The parameters before they are checked.
        requested_outputs: The outputs that the request selects; empty for all outputs.
        binary: True if outputs are binary data by default.
    """

    payloads: Sequence[Payload]
    parameters: dict[str, Any]
    requested_outputs: tuple[RequestedOutput, ...]
    binary: bool


def parse_id(message: Mapping[str, Any]) -> str:
    """Return the request's id, "" if the field is missing. Raises InvalidRequest."""
    value = message.get("id")
    if value is not None and not isinstance(value, str):
        raise InvalidRequest("the field 'id' must be a string")
    return value or ""


class Base64(Enum):
    """The BYTES elements in base64: none, those in JSON (TorchServe's gRPC), or all, including binary data."""

    NONE = "none"
    STRINGS = "strings"
    ALL = "all"

    def decode(self, name: str, item: str | bytes) -> str | bytes:
        """Return the decoded element of the input `name`. Raises InvalidRequest."""
        if self is Base64.NONE or (self is Base64.STRINGS and isinstance(item, bytes)):
            return item
        return decode_base64_element(name, item if isinstance(item, str) else item.decode("latin-1"))


@dataclass(frozen=True)
class _Input:
    """A parsed input, which is either the payload or a parameter."""

    values: TensorValues
    base64: Base64
    parameters: dict[str, Any]


def parse_infer_request(
    message: Mapping[str, Any],
    payload_fields: tuple[str, ...],
    grpc: bool,
    binary: memoryview | None = None,
    parameter_names: Collection[str] = (),
) -> InferRequest:
    """Parse a request.

    Parameters are the `parameters` of the request and of the input, and tensors of one element whose names are in
    `parameter_names`. TorchServe's gRPC supports only such tensors, because it drops `parameters`. The remaining
    tensor is the input and may have any name.

    Args:
        message: The JSON object.
        payload_fields: Names of the input tensor.
        grpc: True if the request came over TorchServe's gRPC.
        binary: The binary data after the JSON; None if the request has no header for binary data.
        parameter_names: Names of tensors that are parameters.

    Raises:
        InvalidRequest: The message is not a valid request.
        InvalidParameter: A parameter is invalid, or an input is neither the payload nor a parameter.
    """
    parameters = drop_ignored(_mapping(message, "parameters"), OPEN_INFERENCE)
    as_binary = _flag(parameters.pop("binary_data_output", None), "binary_data_output")
    requested_outputs = _read_outputs(message)
    inputs: dict[str, _Input] = {}
    start = 0
    for tensor in _list(message, "inputs"):
        name = tensor_name(tensor)
        if name in inputs:
            raise InvalidRequest(f"two inputs are named '{name[:60]}'")
        input_parameters = dict(_mapping(tensor, "parameters"))
        size = input_parameters.pop("binary_data_size", None)
        content = None
        if size is not None:
            content = _slice(name, binary, start, size)
            start += size
        if "shared_memory_region" in input_parameters:
            raise InvalidRequest(f"the input '{name[:60]}': shared memory is not supported; send the data")
        content_type = input_parameters.get("content_type")
        base64 = Base64.STRINGS if grpc else Base64.NONE
        if content_type in BASE64_CONTENT_TYPES:
            base64 = Base64.ALL
            del input_parameters["content_type"]
        values = parse_values(
            name, _with_number_datatype(tensor) if content_type == "raw" else tensor, content, grpc
        )
        inputs[name] = _Input(values, base64, drop_ignored(input_parameters, (CONTENT_TYPE, HEADERS)))
    if grpc and GRPC_OUTPUTS in inputs and inputs[GRPC_OUTPUTS].values.datatype == "BYTES":
        names = inputs.pop(GRPC_OUTPUTS).values.data
        requested_outputs = tuple(
            RequestedOutput(_text(GRPC_OUTPUTS, item, Base64.STRINGS)) for item in names
        )
    if binary is not None and start != len(binary):
        raise InvalidRequest(
            f"{len(binary)} bytes follow the JSON, but the inputs' 'binary_data_size' add up to {start}"
        )
    payload_name = _payload_name(inputs, payload_fields, parameter_names)
    payload = inputs.pop(payload_name)
    for name, other in inputs.items():
        parameters = merge_parameters(parameters, {name: _parameter(name, other.values, other.base64)})
    parameters = merge_parameters(parameters, payload.parameters)
    payloads = _payloads(payload_name, payload.values, payload.base64)
    return InferRequest(payloads, parameters, requested_outputs, bool(as_binary))


_NUMBER_DATATYPES = {bool: "BOOL", int: "INT64", float: "FP64"}


def _with_number_datatype(tensor: Mapping[str, Any]) -> Mapping[str, Any]:
    """Correct the datatype of an input if MLServer's RawCodec declares its number as BYTES."""
    data = tensor.get("data")
    if not (isinstance(data, list) and len(data) == 1 and tensor.get("datatype") == "BYTES"):
        return tensor
    datatype = _NUMBER_DATATYPES.get(type(data[0]))
    return tensor if datatype is None else {**tensor, "datatype": datatype}


_INPUT_NAMES = ("image", "text")
"""Input names that imply a type. A model of another input type rejects them, and accepts all other names."""


def _payload_name(
    names: Collection[str], payload_fields: tuple[str, ...], parameter_names: Collection[str]
) -> str:
    """Return the name of the input that is not a parameter. Raises InvalidRequest unless there is exactly one."""
    payload_names = [name for name in names if name in payload_fields]
    others = [name for name in names if name not in payload_fields and name not in parameter_names]
    if len(payload_names) > 1:
        raise InvalidRequest(f"several inputs: '{payload_names[0]}' and '{payload_names[1]}'; send one")
    if not payload_names and not others:
        raise InvalidRequest(f"no input: expected a tensor named '{payload_fields[0]}'")
    if others and not payload_names and others[0] in _INPUT_NAMES:
        raise InvalidRequest(
            f"this model takes no input '{others[0]}'; name the tensor '{payload_fields[0]}'"
        )
    if len(payload_names) + len(others) > 1:
        known = ", ".join(sorted(parameter_names)) or "none"
        raise InvalidParameter(
            f"the input '{others[-1][:60]}' is unknown: inputs other than '{payload_fields[0]}' must have "
            f"the name of a parameter ({known})"
        )
    return (payload_names or others)[0]


def _payloads(name: str, values: TensorValues, base64: Base64) -> Sequence[Payload]:
    """Return the payloads: the elements of BYTES, one array of numbers, or the arrays in an array of four axes."""
    if len(values.data) == 0:  # also for a shape such as [1000000, 0, 0, 3]
        raise InvalidRequest(f"the input '{name}' is empty")
    if values.datatype == "BYTES":
        payloads = tuple(base64.decode(name, item) for item in values.data)
        if any(map(looks_like_json, payloads)):
            raise InvalidRequest(
                f"the input '{name}' holds JSON; send the text or image itself, and parameters in 'parameters'"
            )
        return payloads
    array = values.array(name)
    # The array itself is the sequence: there may be more images than allowed, too many to create a view of each.
    return cast(Sequence[Payload], array) if array.ndim == 4 else (array,)


def _parameter(name: str, values: TensorValues, base64: Base64) -> Any:
    if len(values.data) != 1:
        raise InvalidRequest(
            f"the parameter '{name[:60]}' must be a tensor of one element, not {len(values.data)}"
        )
    value = values.data[0]
    if values.datatype == "BYTES":
        return _text(name, value, base64)
    return value.item() if isinstance(value, np.generic) else value


def _text(name: str, value: str | bytes, base64: Base64) -> str:
    value = base64.decode(name, value)
    return value if isinstance(value, str) else value.decode(errors="replace")


def _read_outputs(message: Mapping[str, Any]) -> tuple[RequestedOutput, ...]:
    requested_outputs: list[RequestedOutput] = []
    for output in _list(message, "outputs"):
        name = tensor_name(output)
        output_parameters = drop_ignored(_mapping(output, "parameters"), (CONTENT_TYPE,))
        binary = _flag(output_parameters.pop("binary_data", None), "binary_data")
        if output_parameters:
            unknown = format_value(next(iter(output_parameters)))
            raise InvalidParameter(
                f"the output '{name[:60]}': unknown parameter {unknown}; outputs take: binary_data"
            )
        if any(name == other.name for other in requested_outputs):
            raise InvalidRequest(f"the output '{name[:60]}' is selected twice")
        requested_outputs.append(RequestedOutput(name, binary))
    return tuple(requested_outputs)


def _slice(name: str, binary: memoryview | None, start: int, size: Any) -> memoryview:
    label = f"the input '{name[:60]}'"
    if type(size) is not int or size < 0:
        raise InvalidRequest(f"{label}: 'binary_data_size' must be an integer of at least 0")
    if binary is None:
        raise InvalidRequest(f"{label}: 'binary_data_size' requires the header {HEADER_LENGTH}")
    if start + size > len(binary):
        raise InvalidRequest(
            f"{label}: 'binary_data_size' is {size}, but only {len(binary) - start} bytes are left"
        )
    return binary[start : start + size]


def _flag(value: Any, name: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise InvalidParameter(f"'{name}' must be true or false, not {format_value(value)}")
    return value


def _mapping(message: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = message.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise InvalidRequest(f"the field '{key}' must be an object")
    return value or {}


def _list(message: Mapping[str, Any], key: str) -> list[Any]:
    value = message.get(key)
    if value is not None and not isinstance(value, list):
        raise InvalidRequest(
            f"the field '{key}' must be a list of objects with a 'name', as the Open Inference Protocol defines it"
        )
    return value or []
