"""Tells what a failure of the hardware or its libraries means: too little memory, or a device that is lost."""

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
