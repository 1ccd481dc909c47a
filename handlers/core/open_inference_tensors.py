"""One input tensor of the Open Inference Protocol, checked: its datatype, shape and elements."""

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
class Values:
    """`data` is flat, in row-major order: a list from JSON or of BYTES, else an array of the datatype."""

    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any] | np.ndarray

    def array(self, name: str) -> np.ndarray:
        """In its shape and type; binary data are not copied. Raises InvalidRequest."""
        try:
            with np.errstate(over="ignore"):
                return np.asarray(self.data, dtype=NUMPY_TYPES[self.datatype]).reshape(self.shape)
        except (ValueError, OverflowError):
            raise InvalidRequest(
                f"the input '{name}': its data do not fit {self.datatype} of that shape"
            ) from None


def read_values(
    name: str, tensor: Mapping[str, Any], content: memoryview | None, grpc: bool = False
) -> Values:
    """A tensor's values, from `content` where that is its binary data. Raises InvalidRequest or TooManyItems."""
    label = f"the input '{name[:60]}'"
    datatype, shape = tensor.get("datatype"), _shape(label, tensor.get("shape"))
    if not isinstance(datatype, str) or (datatype != "BYTES" and datatype not in NUMPY_TYPES):
        raise InvalidRequest(
            f"{label}: unknown datatype {str(datatype)[:20]!r}; known: BYTES, {', '.join(NUMPY_TYPES)}"
        )
    if content is None:
        return _from_json(label, datatype, shape, tensor.get("data"), grpc)
    if tensor.get("data") is not None:
        raise InvalidRequest(f"{label}: it has both 'data' and 'binary_data_size'")
    return _from_binary(label, datatype, shape, content)


def _from_json(label: str, datatype: str, shape: tuple[int, ...], data: Any, grpc: bool) -> Values:
    if not isinstance(data, list):
        raise InvalidRequest(f"{label}: 'data' must be a list")
    data = _flatten(data)
    if any(isinstance(item, list) for item in data):
        raise InvalidRequest(f"{label}: the lists within 'data' are not of one length and depth")
    count = math.prod(shape)
    if count != len(data):
        hint = (
            "; TorchServe's gRPC hands on 'contents', not 'raw_input_contents'" if grpc and not data else ""
        )
        raise InvalidRequest(
            f"{label}: the shape {list(shape)} has {count} elements, the data {len(data)}{hint}"
        )
    _check_elements(label, datatype, data)
    return Values(datatype, shape, data)


def _from_binary(label: str, datatype: str, shape: tuple[int, ...], content: memoryview) -> Values:
    count = math.prod(shape)
    if datatype == "BYTES":
        if count > MAX_ELEMENTS:
            raise TooManyItems(f"{label}: {count} elements of BYTES; at most {MAX_ELEMENTS} are read")
        try:
            return Values(datatype, shape, unpack_bytes(content, count))
        except ValueError as error:
            raise InvalidRequest(
                f"{label}: its binary data are not {count} elements behind their lengths ({error})"
            ) from None
    size = count * NUMPY_TYPES[datatype].itemsize
    if len(content) != size:
        raise InvalidRequest(
            f"{label}: {datatype} of the shape {list(shape)} takes {size} bytes, not {len(content)}"
        )
    if datatype == "BOOL" and size and np.frombuffer(content, np.uint8).max() > 1:
        raise InvalidRequest(f"{label}: a BOOL is the byte 0 or 1")
    return Values(datatype, shape, np.frombuffer(content, NUMPY_TYPES[datatype]))


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
    """Nested lists flatten in row-major order, as the protocol allows."""
    while data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            break
        data = [item for row in data for item in row]
    return data


def unbase64(name: str, text: str) -> bytes:
    """Raises InvalidRequest."""
    try:
        return decode_base64(text)
    except ValueError as error:
        raise InvalidRequest(f"the input '{name}': an element {error}") from None


def name_of(tensor: Any) -> str:
    """Of an input or output. Raises InvalidRequest."""
    if not isinstance(tensor, Mapping) or not isinstance(tensor.get("name"), str) or not tensor["name"]:
        raise InvalidRequest("every input and output must be an object with a 'name'")
    return str(tensor["name"])
