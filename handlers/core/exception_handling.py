"""Classify exceptions (out of memory, lost device) and convert them to errors for the client."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from handlers.core.errors import ConfigurationError, HandlerError, InternalError, OutOfMemory, Overloaded

logger = logging.getLogger(__name__)

_OUT_OF_MEMORY_TEXTS = (
    "out of memory",  # CUDA, also as "CUDA error: out of memory"
    "can't allocate memory",  # PyTorch's allocator on the CPU
    "_ALLOC_FAILED",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
)
_DEVICE_LOST_TEXTS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS_")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception means too little memory, so that a smaller input could succeed."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)


def is_device_lost(error: BaseException) -> bool:
    """Return True if an exception means that the CUDA context is lost, so that all later calls will fail as well."""
    if is_out_of_memory(error):
        return False
    if type(error).__name__ == "AcceleratorError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _DEVICE_LOST_TEXTS)


def summarize_exception(error: Exception) -> str:
    """Return the type of an exception and the beginning of its message, in one line."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def model_file_errors(problem: str, remedy: str) -> Iterator[None]:
    """Convert exceptions of libraries that read a model's files to ConfigurationError.

    Errors of the operating system and out-of-memory errors are raised unchanged.

    Args:
        problem: Beginning of the message, followed by the reason in parentheses.
        remedy: End of the message, which tells the user what to do.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise ConfigurationError(f"{problem} ({summarize_exception(error)}); {remedy}") from error


def check_time_limit(end: float) -> None:
    """Raise Overloaded if the `time.monotonic()` time `end` has passed."""
    if time.monotonic() > end:
        raise Overloaded(
            "the server's time limit for this batch of requests has passed; retry, or send smaller requests"
        )


def to_handler_error(error: Exception) -> HandlerError:
    """Convert an exception to the error for the client. Unexpected exceptions are logged without sending details.

    The error has no traceback, because the frames in a traceback would keep the parsed bodies in memory.
    """
    if isinstance(error, HandlerError):
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    if is_out_of_memory(error):
        logger.error("out of memory", exc_info=error)
        return OutOfMemory("there is not enough memory for this input; try a smaller one")
    logger.error("unexpected error", exc_info=error)
    return InternalError("internal error; the worker's log has the details")


def exit_worker(error: Exception) -> None:
    """End this process, so that TorchServe starts a new worker."""
    logger.critical(
        "the CUDA context is lost; this worker exits and TorchServe starts a new one", exc_info=error
    )
    logging.shutdown()
    os._exit(1)
