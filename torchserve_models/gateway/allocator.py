"""Make the C library return the memory of large request bodies to the system as soon as they are freed."""

import contextlib
import ctypes

# Parameters of mallopt, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
MIN_MMAP_BYTES = 256 * 2**10


def return_large_blocks() -> None:
    """Allocate blocks of at least MIN_MMAP_BYTES with mmap.

    glibc raises its threshold after the first large blocks are freed, and the process then keeps most of the
    memory of the largest bodies it has received. Does nothing if the C library has no `mallopt`.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, MIN_MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, MIN_MMAP_BYTES)
        mallopt(_M_ARENA_MAX, 2)
