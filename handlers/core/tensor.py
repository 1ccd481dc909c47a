"""Plain data of requests and answers: payloads in, tensors out, and how the Open Inference Protocol writes them."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Payload = bytes | str | np.ndarray
"""bytes: as sent; str: from JSON; array: a numeric Open Inference tensor, in its shape and type."""

NUMPY_TYPES: Mapping[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""The protocol's datatypes, in the byte order of its binary data; BYTES has elements of any length."""


@dataclass(frozen=True)
class TensorSpec:
    """What a model's metadata says of a tensor; -1 in `shape` is any size.

    `also`: further datatypes and shapes in which an input of this name is taken.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    also: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        own = {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}
        if not self.also:
            return own
        also = [{"datatype": datatype, "shape": list(shape)} for datatype, shape in self.also]
        return own | {"parameters": {"also": also}}


@dataclass(frozen=True)
class Tensor:
    """An Open Inference Protocol tensor; `data` is flat, in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]

    def as_dict(self) -> dict[str, Any]:
        return self._head() | {"data": self.data}

    def as_binary(self) -> tuple[dict[str, Any], bytes]:
        """As the binary data extension has it: the tensor without its data, and those as bytes."""
        if self.datatype == "BYTES":
            content = pack_bytes([_encoded(item) for item in self.data])
        else:
            content = np.asarray(self.data, NUMPY_TYPES[self.datatype]).tobytes()
        return self._head() | {"parameters": {"binary_data_size": len(content)}}, content

    def _head(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def pack_bytes(items: list[bytes]) -> bytes:
    """BYTES elements one after the other, each behind its length in four bytes, little-endian."""
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def unpack_bytes(content: memoryview, count: int) -> list[bytes]:
    """The other way round. Raises ValueError unless it is exactly `count` elements."""
    items: list[bytes] = []
    start = 0
    while start < len(content) and len(items) < count:
        (length,) = struct.unpack_from("<I", content, start) if start + 4 <= len(content) else (len(content),)
        start += 4 + length
        if start > len(content):
            raise ValueError("an element ends behind the data")
        items.append(bytes(content[start - length : start]))
    if len(items) != count or start != len(content):
        raise ValueError(f"not {count} elements")
    return items


def _encoded(item: str | bytes) -> bytes:
    """Half a surrogate pair, which a text may hold, stays an escape."""
    return item if isinstance(item, bytes) else item.encode("utf-8", "backslashreplace")
