"""Where a worker computes: device, precision and threads."""

import contextlib
import logging
import math
import os
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from handlers.core.config import HandlerConfig

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

AMX = frozenset({"amx_bf16"})
"""The CPU flag of bf16 tiles."""

FAST_INT8 = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})
"""CPU flags with which products of int8 are faster than of wider types, and exact."""

NICE_VARIABLE = "HANDLER_CPU_NICE"
"""Environment variable with the nice value of a worker that computes on the CPU, 0 to 19; unset: unchanged."""

GPU_SHARE = 0.9
"""Of one GPU's memory for all workers of a model; CUDA's own context, which no limit counts, needs the rest."""


def _lower_priority() -> None:
    """Let the front end, proxies and probes run before computation, which keeps every core busy for long.

    Threads that are started later inherit the nice value.
    """
    value = os.environ.get(NICE_VARIABLE, "")
    if not value:
        return
    if not (value.isascii() and value.isdigit() and int(value) <= 19):
        logger.warning("%s must be an integer from 0 to 19, not %r: priority unchanged", NICE_VARIABLE, value)
        return
    with contextlib.suppress(OSError):  # a higher priority than the process has takes a privilege
        os.setpriority(os.PRIO_PROCESS, 0, int(value))


@dataclass(frozen=True)
class Device:
    """`torch_device` and `dtype` for the network's weights; `threads` for one operation on the CPU.

    `gpu_memory` is the share of one GPU's memory that this process may take. An item that comes alone may have
    `lone_threads` where they are more than `threads`.
    """

    torch_device: "torch.device"
    dtype: "torch.dtype"
    threads: int
    gpu_memory: float = 1.0
    lone_threads: int = 1

    @classmethod
    def choose(
        cls, gpu_id: int | None, config: HandlerConfig, workers: int = 1, bf16_flags: Set[str] = AMX
    ) -> "Device":
        """The worker's GPU where TorchServe gives one (`gpu_id`), else the CPU.

        `workers` is how many processes of this model share the cores and the GPUs. `bf16_flags`: a CPU with one of
        them has bf16 fast for the task. The precision "int8" is an engine's own; for all else it is "auto".
        """
        import torch

        on_gpu = gpu_id is not None and torch.cuda.is_available()
        if gpu_id is not None and not on_gpu:
            logger.warning(
                "TorchServe gives GPU %s, but this torch cannot use it: computing on the CPU", gpu_id
            )
        device = torch.device(f"cuda:{gpu_id}" if on_gpu else "cpu")
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
        dtype = dtypes.get(config.precision)
        if dtype is None:
            fast = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else has_any(bf16_flags)
            dtype = dtypes["bf16" if fast else "fp32"]
        workers = max(1, workers)
        if config.threads == "auto":
            lone_threads = usable_cores()
            threads = max(1, lone_threads // workers)
        else:
            threads = lone_threads = config.threads
        share = config.gpu_memory
        if share == "auto":
            share = GPU_SHARE / math.ceil(workers / torch.cuda.device_count()) if on_gpu else 1.0
        return cls(device, dtype, threads, share, lone_threads)

    def apply(self) -> None:
        """Set this process's thread count, priority and memory limit; once, before the first operation."""
        import torch

        torch.set_num_threads(self.threads)
        if self.torch_device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(self.gpu_memory, self.torch_device)
        else:
            _lower_priority()

    def pool(self) -> ThreadPoolExecutor | None:
        """`threads` threads, in each of which torch computes with that one thread; None where one is all there is."""
        import torch

        if self.threads == 1:
            return None
        return ThreadPoolExecutor(self.threads, "decode", initializer=torch.set_num_threads, initargs=(1,))

    def describe(self) -> dict[str, Any]:
        memory = {"gpu_memory": self.gpu_memory} if self.torch_device.type == "cuda" else {}
        return {
            "device": str(self.torch_device),
            "precision": self.precision,
            "threads": self.threads,
        } | memory

    @property
    def precision(self) -> str:
        """`dtype` in the words of the configuration."""
        return {"float32": "fp32", "bfloat16": "bf16"}[str(self.dtype).removeprefix("torch.")]


def limit_kernel_caches(entries: int) -> None:
    """Keep at most so many compiled operations in each of oneDNN's and torch's caches; before the first operation.

    They keep 1,024 by default, one for each shape of each operation. With texts of every length that is 0.75 MB each,
    about 1 GB in all, and no faster. What the environment says stays.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(entries))


def usable_cores() -> int:
    """Cores this process may really use: its affinity, cut by the control group's quota (v2, then v1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cores()
    return max(1, min(cores, int(quota)) if quota else cores)


def _cgroup_cores() -> float | None:
    def read(path: str) -> list[str]:
        try:
            with open(path) as file:
                return file.read().split()
        except OSError:
            return []

    limit = read("/sys/fs/cgroup/cpu.max")
    if len(limit) == 2 and limit[0] != "max":
        return max(1.0, int(limit[0]) / int(limit[1]))
    quota, period = read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return max(1.0, int(quota[0]) / int(period[0]))
    return None


def has_any(flags: Set[str]) -> bool:
    """Whether the CPU has one of these flags."""
    return not flags.isdisjoint(cpu_flags())


@cache
def cpu_flags() -> frozenset[str]:
    """The CPU's instruction sets as Linux names them in /proc/cpuinfo; empty elsewhere."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                (frozenset(line.split()[2:]) for line in file if line.startswith("flags")), frozenset()
            )
    except OSError:
        return frozenset()
