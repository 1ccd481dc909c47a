"""The Open Inference Protocol: tensors in, tensors out, as JSON or with the binary data extension.

TorchServe's gRPC service turns a ModelInferRequest into the JSON (BYTES in base64; `parameters`, `outputs` and
`raw_input_contents` dropped) and reads the answer back from JSON. There a reply without `id`, `model_name`,
`model_version` or `outputs` kills the worker, so that an error, too, has to be a whole reply.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import numpy as np

from handlers.core.errors import HandlerError, InvalidParameter, InvalidRequest
from handlers.core.json_source import is_json_source
from handlers.core.open_inference_tensors import Values, name_of, read_values, unbase64
from handlers.core.parameters import shown
from handlers.core.passed_over import BASE64_CONTENT_TYPES, CONTENT_TYPE, HEADERS, OPEN_INFERENCE, without
from handlers.core.raw_parameters import joined
from handlers.core.reply import Body, Writer, to_json
from handlers.core.tensor import Payload, Tensor

HEADER_LENGTH = "Inference-Header-Content-Length"
GRPC_OUTPUTS = "outputs"
"""The input that selects outputs over gRPC, where TorchServe drops the field of this name."""


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the request selects; `binary` is None where it says nothing of that."""

    name: str
    binary: bool | None = None


@dataclass(frozen=True)
class OpenInferenceReply:
    """`requested_outputs` are the outputs that the request selected; none means all.

    `binary`: whether outputs that do not say are sent as binary data.
    """

    id: str
    model_name: str
    model_version: str
    grpc: bool = False
    requested_outputs: tuple[RequestedOutput, ...] = ()
    binary: bool = False

    def answer(self, writer: Writer, answers: Sequence[Any]) -> Any:
        tensors = {tensor.name: tensor for tensor in writer.outputs(answers)}
        for output in self.requested_outputs:
            if output.name not in tensors:
                raise InvalidRequest(
                    f"unknown output '{output.name[:60]}'; this model has: {', '.join(tensors)}"
                )
        heads: list[dict[str, Any]] = []
        contents: list[bytes] = []
        for output in self.requested_outputs or [RequestedOutput(name) for name in tensors]:
            tensor = tensors[output.name]
            if self.binary if output.binary is None else output.binary:
                head, content = tensor.as_binary()
                contents.append(content)
            else:
                head = tensor.as_dict()
            heads.append(head)
        message = self._whole(heads)
        if not contents:
            return message
        header = to_json(message)
        headers = {HEADER_LENGTH: str(len(header))}
        return Body(b"".join([header, *contents]), "application/octet-stream", headers)

    def error(self, error: HandlerError) -> Any:
        if self.grpc:
            text = to_json(error.as_dict()).decode()
            return self._whole([Tensor("error", "BYTES", (1,), [text]).as_dict()])
        return error.as_dict()

    def _whole(self, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "model_name": self.model_name,
            "model_version": self.model_version,
            "outputs": outputs,
        }


@dataclass(frozen=True)
class Message:
    """A request that was read. `binary`: whether outputs that say nothing of it are wanted as binary data."""

    payloads: Sequence[Payload]
    parameters: dict[str, Any]
    requested_outputs: tuple[RequestedOutput, ...]
    binary: bool


def read_id(message: Mapping[str, Any]) -> str:
    """Raises InvalidRequest."""
    value = message.get("id")
    if value is not None and not isinstance(value, str):
        raise InvalidRequest("the field 'id' must be a string")
    return value or ""


class Base64(Enum):
    """Which elements of BYTES are in base64: none, those of JSON (TorchServe's gRPC), or binary data, too."""

    NONE = "none"
    STRINGS = "strings"
    ALL = "all"

    def decode(self, name: str, item: str | bytes) -> str | bytes:
        """Raises InvalidRequest."""
        if self is Base64.NONE or (self is Base64.STRINGS and isinstance(item, bytes)):
            return item
        return unbase64(name, item if isinstance(item, str) else item.decode("latin-1"))


@dataclass(frozen=True)
class _Input:
    """An input that was read, before it is known whether it is the payload or a parameter."""

    values: Values
    base64: Base64
    parameters: dict[str, Any]


def read_message(
    message: Mapping[str, Any],
    payload_fields: tuple[str, ...],
    grpc: bool,
    binary: memoryview | None = None,
    parameter_names: Collection[str] = (),
) -> Message:
    """Raises InvalidRequest, InvalidParameter. `binary` is what followed the JSON, None where nothing may.

    Parameters are the request's and the input's `parameters`, and further one-element tensors under one of
    `parameter_names`: the only way through TorchServe's gRPC, which drops `parameters`. The one tensor that is no
    parameter is the input, whatever its name.
    """
    parameters = without(_mapping(message, "parameters"), OPEN_INFERENCE)
    as_binary = _flag(parameters.pop("binary_data_output", None), "binary_data_output")
    requested_outputs = _read_outputs(message)
    inputs: dict[str, _Input] = {}
    start = 0
    for tensor in _list(message, "inputs"):
        name = name_of(tensor)
        if name in inputs:
            raise InvalidRequest(f"two inputs are named '{name[:60]}'")
        own = dict(_mapping(tensor, "parameters"))
        size = own.pop("binary_data_size", None)
        content = None
        if size is not None:
            content = _slice(name, binary, start, size)
            start += size
        if "shared_memory_region" in own:
            raise InvalidRequest(f"the input '{name[:60]}': shared memory is not offered; send the data")
        content_type = own.get("content_type")
        base64 = Base64.STRINGS if grpc else Base64.NONE
        if content_type in BASE64_CONTENT_TYPES:
            base64 = Base64.ALL
            del own["content_type"]
        values = read_values(name, _typed(tensor) if content_type == "raw" else tensor, content, grpc)
        inputs[name] = _Input(values, base64, without(own, (CONTENT_TYPE, HEADERS)))
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
        parameters = joined(parameters, {name: _parameter(name, other.values, other.base64)})
    parameters = joined(parameters, payload.parameters)
    payloads = _payloads(payload_name, payload.values, payload.base64)
    return Message(payloads, parameters, requested_outputs, bool(as_binary))


_TYPES_OF_NUMBERS = {bool: "BOOL", int: "INT64", float: "FP64"}


def _typed(tensor: Mapping[str, Any]) -> Mapping[str, Any]:
    """An input of MLServer's RawCodec, which calls one number BYTES as well, with the number's own datatype."""
    data = tensor.get("data")
    if not (isinstance(data, list) and len(data) == 1 and tensor.get("datatype") == "BYTES"):
        return tensor
    datatype = _TYPES_OF_NUMBERS.get(type(data[0]))
    return tensor if datatype is None else {**tensor, "datatype": datatype}


_KINDS_OF_INPUTS = ("image", "text")
"""A tensor of another name may be of any kind; one of these names says of which it is."""


def _payload_name(
    names: Collection[str], payload_fields: tuple[str, ...], parameter_names: Collection[str]
) -> str:
    """The input that is no parameter. Raises InvalidRequest unless there is exactly one."""
    named = [name for name in names if name in payload_fields]
    others = [name for name in names if name not in payload_fields and name not in parameter_names]
    if len(named) > 1:
        raise InvalidRequest(f"several inputs: '{named[0]}' and '{named[1]}'; send one")
    if not named and not others:
        raise InvalidRequest(f"no input: expected a tensor named '{payload_fields[0]}'")
    if others and not named and others[0] in _KINDS_OF_INPUTS:
        raise InvalidRequest(
            f"this model takes no input '{others[0]}'; name the tensor '{payload_fields[0]}'"
        )
    if len(named) + len(others) > 1:
        known = ", ".join(sorted(parameter_names)) or "none"
        raise InvalidParameter(
            f"the input '{others[-1][:60]}' is unknown: beside the one input '{payload_fields[0]}', inputs have the "
            f"name of a parameter ({known})"
        )
    return (named or others)[0]


def _payloads(name: str, values: Values, base64: Base64) -> Sequence[Payload]:
    """BYTES: one payload an element. Numbers: one array, or of four axes one for each of the first."""
    if len(values.data) == 0:  # of a shape such as [1000000, 0, 0, 3], as well
        raise InvalidRequest(f"the input '{name}' is empty")
    if values.datatype == "BYTES":
        payloads = tuple(base64.decode(name, item) for item in values.data)
        if any(map(is_json_source, payloads)):
            raise InvalidRequest(
                f"the input '{name}' holds JSON; send the text or image itself, and parameters as 'parameters'"
            )
        return payloads
    array = values.array(name)
    # An array of several is their sequence as it is: there may be more than are allowed, too many for a view of each.
    return cast(Sequence[Payload], array) if array.ndim == 4 else (array,)


def _parameter(name: str, values: Values, base64: Base64) -> Any:
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
        name = name_of(output)
        own = without(_mapping(output, "parameters"), (CONTENT_TYPE,))
        binary = _flag(own.pop("binary_data", None), "binary_data")
        if own:
            unknown = shown(next(iter(own)))
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
        raise InvalidRequest(f"{label}: 'binary_data_size' needs the header {HEADER_LENGTH}")
    if start + size > len(binary):
        raise InvalidRequest(
            f"{label}: 'binary_data_size' is {size}, but only {len(binary) - start} bytes are left"
        )
    return binary[start : start + size]


def _flag(value: Any, name: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise InvalidParameter(f"'{name}' must be true or false, not {shown(value)}")
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
            f"the field '{key}' must be a list of objects with a 'name', as the Open Inference Protocol has it"
        )
    return value or []
