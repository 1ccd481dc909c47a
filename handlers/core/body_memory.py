"""Release the memory of large request bodies after parsing, and return it to the system after the batch."""

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import Any

TRIM_BYTES = 4 * 2**20
"""Total size of a batch's bodies in bytes above which free memory is returned to the system (takes milliseconds)."""


def size_of(fields: Mapping[str, Any]) -> int:
    """Return the total size of a request's fields in bytes."""
    return sum(len(value) for value in fields.values() if isinstance(value, bytes | bytearray | str))


def release(fields: Mapping[str, Any]) -> None:
    """Clear the bodies of a parsed request, which TorchServe would otherwise keep until the next batch.

    A body that a tensor still uses is not changed.
    """
    for value in fields.values():
        if isinstance(value, bytearray):
            try:
                value.clear()
            except BufferError:
                continue


def trim() -> None:
    """Return free heap memory to the system, if the C library is glibc."""
    malloc_trim = _malloc_trim()
    if malloc_trim is not None:
        malloc_trim(0)


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # not glibc
        return None
