"""Have the C library give the memory of large bodies back to the system as soon as they are freed."""

import contextlib
import ctypes

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
LARGE_BYTES = 256 * 2**10


def return_large_blocks() -> None:
    """Allocate blocks of LARGE_BYTES and more by mmap, which glibc otherwise stops doing after the first ones.

    Without it the process keeps most of the memory of the largest bodies it has ever seen. Does nothing where the C
    library has no `mallopt`.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, LARGE_BYTES)
        mallopt(_M_ARENA_MAX, 2)
