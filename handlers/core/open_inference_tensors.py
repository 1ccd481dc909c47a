"""Parse input tensors of the Open Inference Protocol: datatype, shape and elements."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handlers.core.base64_text import decode_base64
from handlers.core.body_limits import MAX_ELEMENTS
from handlers.core.errors import InvalidRequest, TooManyItems
from handlers.core.tensor import NUMPY_TYPES, unpack_bytes


@dataclass(frozen=True)
class TensorValues:
    """A tensor with flat elements in row-major order: a list from JSON or of BYTES, an array from binary data."""

    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any] | np.ndarray

    def array(self, name: str) -> np.ndarray:
        """Return the elements as an array of the tensor's shape and type. Does not copy binary data.

        Raises InvalidRequest.
        """
        try:
            with np.errstate(over="ignore"):
                return np.asarray(self.data, dtype=NUMPY_TYPES[self.datatype]).reshape(self.shape)
        except (ValueError, OverflowError):
            raise InvalidRequest(
                f"the input '{name}': its data do not fit its datatype {self.datatype} and shape"
            ) from None


def parse_values(
    name: str, tensor: Mapping[str, Any], content: memoryview | None, grpc: bool = False
) -> TensorValues:
    """Parse the elements of a tensor.

    Args:
        name: The tensor's name.
        tensor: The tensor's JSON object.
        content: The tensor's binary data; None if its data are in JSON.
        grpc: True if the request came over TorchServe's gRPC.

    Raises:
        InvalidRequest: The tensor is malformed.
        TooManyItems: The tensor has too many elements of BYTES.
    """
    label = f"the input '{name[:60]}'"
    datatype, shape = tensor.get("datatype"), _shape(label, tensor.get("shape"))
    if not isinstance(datatype, str) or (datatype != "BYTES" and datatype not in NUMPY_TYPES):
        raise InvalidRequest(
            f"{label}: unknown datatype {str(datatype)[:20]!r}; known: BYTES, {', '.join(NUMPY_TYPES)}"
        )
    if content is None:
        return _from_json(label, datatype, shape, tensor.get("data"), grpc)
    if tensor.get("data") is not None:
        raise InvalidRequest(f"{label} has both 'data' and 'binary_data_size'; send one of them")
    return _from_binary(label, datatype, shape, content)


def _from_json(label: str, datatype: str, shape: tuple[int, ...], data: Any, grpc: bool) -> TensorValues:
    if not isinstance(data, list):
        raise InvalidRequest(f"{label}: 'data' must be a list")
    data = _flatten(data)
    if any(isinstance(item, list) for item in data):
        raise InvalidRequest(f"{label}: the lists within 'data' differ in length or depth")
    count = math.prod(shape)
    if count != len(data):
        hint = (
            "; TorchServe's gRPC forwards 'contents', not 'raw_input_contents'" if grpc and not data else ""
        )
        raise InvalidRequest(
            f"{label}: the shape {list(shape)} has {count} elements, the data {len(data)}{hint}"
        )
    _check_elements(label, datatype, data)
    return TensorValues(datatype, shape, data)


def _from_binary(label: str, datatype: str, shape: tuple[int, ...], content: memoryview) -> TensorValues:
    count = math.prod(shape)
    if datatype == "BYTES":
        if count > MAX_ELEMENTS:
            raise TooManyItems(f"{label}: {count} elements of BYTES; at most {MAX_ELEMENTS} are allowed")
        try:
            return TensorValues(datatype, shape, unpack_bytes(content, count))
        except ValueError as error:
            raise InvalidRequest(
                f"{label}: its binary data are not {count} elements, each preceded by its length ({error})"
            ) from None
    size = count * NUMPY_TYPES[datatype].itemsize
    if len(content) != size:
        raise InvalidRequest(
            f"{label}: {datatype} of the shape {list(shape)} takes {size} bytes, not {len(content)}"
        )
    if datatype == "BOOL" and size and np.frombuffer(content, np.uint8).max() > 1:
        raise InvalidRequest(f"{label}: each BOOL must be the byte 0 or 1")
    return TensorValues(datatype, shape, np.frombuffer(content, NUMPY_TYPES[datatype]))


def _shape(label: str, shape: Any) -> tuple[int, ...]:
    if isinstance(shape, list) and len(shape) <= 8 and all(type(n) is int and 0 <= n < 2**31 for n in shape):
        return tuple(shape)
    raise InvalidRequest(f"{label}: 'shape' must be a list of at most 8 integers from 0 to 2^31 - 1")


_TYPE_NAMES: Mapping[type, str] = {str: "strings", bool: "true and false", int: "integers", float: "decimals"}


def _check_elements(label: str, datatype: str, data: list[Any]) -> None:
    if datatype == "BYTES":
        allowed: tuple[type, ...] = (str,)
    elif datatype == "BOOL":
        allowed = (bool,)
    else:
        allowed = (int, float) if datatype.startswith("FP") else (int,)
    if not set(map(type, data)) <= set(allowed):
        wrong = next(item for item in data if type(item) not in allowed)
        kinds = " or ".join(_TYPE_NAMES[kind] for kind in allowed)
        raise InvalidRequest(
            f"{label}: {str(wrong)[:30]!r} is not an element of {datatype}, which takes {kinds}"
        )
    if datatype.startswith(("INT", "UINT")) and data:
        limits = np.iinfo(NUMPY_TYPES[datatype])
        if min(data) < limits.min or max(data) > limits.max:
            raise InvalidRequest(f"{label}: {datatype} takes {limits.min} to {limits.max}")


def _flatten(data: list[Any]) -> list[Any]:
    """Return the elements of nested lists in row-major order."""
    while data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            break
        data = [item for row in data for item in row]
    return data


def decode_base64_element(name: str, text: str) -> bytes:
    """Decode a base64 element of the input `name`. Raises InvalidRequest."""
    try:
        return decode_base64(text)
    except ValueError as error:
        raise InvalidRequest(f"the input '{name}': an element {error}") from None


def tensor_name(tensor: Any) -> str:
    """Return the name of an input or output. Raises InvalidRequest if the name is missing."""
    if not isinstance(tensor, Mapping) or not isinstance(tensor.get("name"), str) or not tensor["name"]:
        raise InvalidRequest("every input and output must be an object with a 'name'")
    return str(tensor["name"])
