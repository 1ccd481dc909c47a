"""Payloads of requests, tensors of responses, and the Open Inference Protocol's tensor encoding."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Payload = bytes | str | np.ndarray
"""An undecoded input: bytes of a body or field, a string from JSON, or an array from a numeric tensor."""

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
"""The protocol's numeric datatypes, in the byte order of its binary data."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor in a model's metadata.

    Attributes:
        name: The tensor's name.
        datatype: The tensor's datatype.
        shape: The tensor's shape; -1 means any size.
        also: Alternative datatypes and shapes of an input.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    also: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        spec = {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}
        if not self.also:
            return spec
        also = [{"datatype": datatype, "shape": list(shape)} for datatype, shape in self.also]
        return spec | {"parameters": {"also": also}}


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
        """Encode the tensor for the binary data extension: its JSON without the data, and the data as bytes."""
        if self.datatype == "BYTES":
            content = pack_bytes([_encoded(item) for item in self.data])
        else:
            content = np.asarray(self.data, NUMPY_TYPES[self.datatype]).tobytes()
        return self._head() | {"parameters": {"binary_data_size": len(content)}}, content

    def _head(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def pack_bytes(items: list[bytes]) -> bytes:
    """Concatenate BYTES elements, each after its length in four bytes (little-endian)."""
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def unpack_bytes(content: memoryview, count: int) -> list[bytes]:
    """Split packed BYTES data into `count` elements. Raises ValueError if the lengths do not match."""
    items: list[bytes] = []
    start = 0
    while start < len(content) and len(items) < count:
        (length,) = struct.unpack_from("<I", content, start) if start + 4 <= len(content) else (len(content),)
        start += 4 + length
        if start > len(content):
            raise ValueError("an element is longer than the data")
        items.append(bytes(content[start - length : start]))
    if len(items) != count or start != len(content):
        raise ValueError(f"not {count} elements")
    return items


def _encoded(item: str | bytes) -> bytes:
    """Encode a string in UTF-8, with escapes for lone surrogates."""
    return item if isinstance(item, bytes) else item.encode("utf-8", "backslashreplace")
