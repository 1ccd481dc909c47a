"""What a failure means: too little memory, a device that is lost, or time that is over; and how it is answered."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from handlers.core.errors import ConfigurationError, HandlerError, InternalError, OutOfMemory, Overloaded

logger = logging.getLogger(__name__)

_MEMORY = (
    "out of memory",  # CUDA's own, also as "CUDA error: out of memory"
    "can't allocate memory",  # PyTorch's allocator on the CPU
    "_ALLOC_FAILED",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
)
_LOST = ("CUDA error", "cuDNN error", "CUBLAS_STATUS_")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller input could succeed in the same process."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether the GPU's context is broken: the error sticks to the process, and every later call fails as well."""
    if is_out_of_memory(error):
        return False
    if type(error).__name__ == "AcceleratorError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST)


def line(error: Exception) -> str:
    """An exception in one line: its kind, and the beginning of what it says."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def model_file_errors(problem: str, remedy: str) -> Iterator[None]:
    """Turn whatever a library raises at a model's files into a ConfigurationError: `problem` (reason); `remedy`.

    Errors of the operating system and a lack of memory stay what they are.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise ConfigurationError(f"{problem} ({line(error)}); {remedy}") from error


def check_time(end: float) -> None:
    """Raises Overloaded."""
    if time.monotonic() > end:
        raise Overloaded("the server's time for this batch of requests is over; retry, or ask for less")


def as_handler_error(error: Exception) -> HandlerError:
    """The answer for any exception; what is our fault goes to the log and is not told to the client.

    The answer is kept until the batch is done, so it refers to no frame: a frame holds the request's parsed body.
    """
    if isinstance(error, HandlerError):
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    if is_out_of_memory(error):
        logger.error("out of memory", exc_info=error)
        return OutOfMemory("there is not enough memory for this input; try a smaller one")
    logger.error("unexpected error", exc_info=error)
    return InternalError("internal error; the worker's log has the details")


def end_process(error: Exception) -> None:
    """So that TorchServe starts a new one: this one would answer with errors for ever."""
    logger.critical("the GPU's context is lost; this worker ends and is replaced", exc_info=error)
    logging.shutdown()
    os._exit(1)
