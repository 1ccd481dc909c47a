"""Memory of large request bodies: released as soon as they are read, and returned to the system after the batch."""

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import Any

TRIM_BYTES = 4 * 2**20
"""Bodies of one batch, together, above which the C library is asked to return free memory; it takes milliseconds."""


def size_of(fields: Mapping[str, Any]) -> int:
    """Bytes of a request's fields."""
    return sum(len(value) for value in fields.values() if isinstance(value, bytes | bytearray | str))


def release(fields: Mapping[str, Any]) -> None:
    """Empty the bodies of a request that was read: TorchServe keeps them until the next batch has arrived.

    A body that a tensor still refers to stays.
    """
    for value in fields.values():
        if isinstance(value, bytearray):
            try:
                value.clear()
            except BufferError:
                continue


def trim() -> None:
    """Return free memory of the C library's heap to the system, where the library can."""
    malloc_trim = _malloc_trim()
    if malloc_trim is not None:
        malloc_trim(0)


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # not glibc
        return None
