"""Choose a worker's device, precision and threads."""

import contextlib
import logging
import math
import os
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from handlers.core.config import HandlerConfig
from handlers.core.instruction_sets import without_limited_flags

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

AMX = frozenset({"amx_bf16"})
"""CPU flag of matrix tiles (AMX) for bf16."""

FAST_BF16 = AMX | {"avx512_bf16"}
"""CPU flags of instructions that multiply bf16. Without them, bf16 is several times slower than fp32."""

FAST_INT8 = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})
"""CPU flags of instructions that multiply int8 exactly, and faster than wider types."""

NICE_VARIABLE = "HANDLER_CPU_NICE"
"""Environment variable with the nice value (0 to 19) of workers that compute on the CPU. Unset: no change."""

GPU_MEMORY_SHARE = 0.9
"""Share of one GPU's memory for all workers of a model. The CUDA context needs the rest."""

BF16_CAPABILITY, FP16_CAPABILITY = (8, 0), (7, 0)
"""Compute capabilities from which a GPU of Nvidia multiplies bf16 (Ampere) and fp16 (Volta) in tensor cores."""


def _lower_priority() -> None:
    """Lower the priority of this process, so that the front end, proxies and probes run before computation.

    Threads that start later inherit the nice value.
    """
    value = os.environ.get(NICE_VARIABLE, "")
    if not value:
        return
    if not (value.isascii() and value.isdigit() and int(value) <= 19):
        logger.warning("%s must be an integer from 0 to 19, not %r: priority unchanged", NICE_VARIABLE, value)
        return
    with contextlib.suppress(OSError):  # raising the priority needs a privilege
        os.setpriority(os.PRIO_PROCESS, 0, int(value))


@dataclass(frozen=True)
class Device:
    """A worker's device, precision, threads and memory limit.

    Attributes:
        torch_device: Device of the network's weights.
        dtype: Data type of the weights.
        threads: Threads of one operation on the CPU.
        gpu_memory: Share of one GPU's memory that this process may use.
        single_item_threads: Threads for a batch of one item, at least `threads`.
        warning: Why the precision differs from the configured one; empty if it does not.
    """

    torch_device: "torch.device"
    dtype: "torch.dtype"
    threads: int
    gpu_memory: float = 1.0
    single_item_threads: int = 1
    warning: str = ""

    @classmethod
    def choose(
        cls,
        gpu_id: int | None,
        config: HandlerConfig,
        workers: int = 1,
        bf16_flags: Set[str] = AMX,
        device_ids: Sequence[int] | None = None,
        fp16_on_gpu: bool = False,
    ) -> "Device":
        """Return the GPU that TorchServe assigns to the worker, or else the CPU.

        Args:
            gpu_id: The assigned GPU; None for the CPU.
            config: The handler's settings. The precision "int8" is treated as "auto", because only engines use it;
                "bf16" is replaced by fp32, with a warning, on a CPU without instructions for it.
            workers: Processes of this model, which share the cores and the GPUs.
            bf16_flags: CPU flags. The task is faster in bf16 on a CPU that has at least one of them.
            device_ids: The GPUs of this model (`deviceIds`); None for all GPUs.
            fp16_on_gpu: Whether the task computes in fp16 on a GPU without bf16.
        """
        import torch

        on_gpu = gpu_id is not None and torch.cuda.is_available()
        if gpu_id is not None and not on_gpu:
            logger.warning(
                "TorchServe assigns GPU %s, but this build of PyTorch cannot use it: computing on the CPU",
                gpu_id,
            )
        device = torch.device(f"cuda:{gpu_id}" if on_gpu else "cpu")
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = dtypes.get(config.precision)
        if dtype is None:
            cpu_precision = "bf16" if has_any(bf16_flags) else "fp32"
            dtype = dtypes[_gpu_precision(device, fp16_on_gpu) if on_gpu else cpu_precision]
        warning = ""
        if config.precision == "bf16" and not on_gpu and cpu_flags() and not has_any(FAST_BF16):
            dtype = torch.float32
            warning = f"bf16 requires a CPU with one of {', '.join(sorted(FAST_BF16))}"
            logger.warning("%s: computing in fp32", warning)
        workers = max(1, workers)
        if config.threads == "auto":
            single_item_threads = usable_cores()
            threads = max(1, single_item_threads // workers)
        else:
            threads = single_item_threads = config.threads
        share = config.gpu_memory
        if share == "auto":
            share = 1.0
            if gpu_id is not None and on_gpu:
                share = GPU_MEMORY_SHARE / _workers_on_gpu(
                    gpu_id, workers, device_ids, torch.cuda.device_count()
                )
        # torch requires a float.
        return cls(device, dtype, threads, float(share), single_item_threads, warning)

    def apply(self) -> None:
        """Set this process's thread count, priority and memory limit. Call once, before the first operation."""
        import torch

        torch.set_num_threads(self.threads)
        if self.torch_device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(self.gpu_memory, self.torch_device)
        else:
            _lower_priority()

    def pool(self) -> ThreadPoolExecutor | None:
        """Return a pool of `threads` threads whose torch operations use one thread each; None for one thread."""
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
            "cores": usable_cores(),
        } | memory

    @property
    def precision(self) -> str:
        """The name of `dtype` in the configuration."""
        names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
        return names[str(self.dtype).removeprefix("torch.")]


def _gpu_precision(device: "torch.device", allows_fp16: bool) -> str:
    """Return the fastest precision of this GPU, which may differ from that of the process's current GPU."""
    import torch

    if torch.version.hip is not None:  # AMD: all GPUs that torch supports
        return "bf16"
    capability = torch.cuda.get_device_capability(device)
    if capability >= BF16_CAPABILITY:
        return "bf16"
    return "fp16" if allows_fp16 and capability >= FP16_CAPABILITY else "fp32"


def _workers_on_gpu(gpu_id: int, workers: int, device_ids: Sequence[int] | None, num_gpus: int) -> int:
    """Return the maximum number of a model's workers on a GPU.

    TorchServe assigns workers in turn to the GPUs of `deviceIds`, or to all GPUs if one of the IDs does not exist.
    """
    ids = list(device_ids) if isinstance(device_ids, list | tuple) else []
    if not ids or not all(type(device_id) is int and 0 <= device_id < num_gpus for device_id in ids):
        ids = list(range(num_gpus))
    return math.ceil(workers / len(ids)) * max(1, ids.count(gpu_id))


def limit_kernel_caches(entries: int) -> None:
    """Limit the caches of compiled operations of oneDNN and torch to `entries` each. Call before the first operation.

    The default is 1,024 entries, one for each shape of each operation. With texts of all lengths, an entry takes
    0.75 MB and the caches take about 1 GB, without any gain in speed. Environment variables that are already set take
    precedence.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(entries))


def usable_cores() -> int:
    """Return the number of cores that this process may use: its affinity, limited by its cgroup quota (v2 or v1)."""
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
    """Return True if the CPU has at least one of these flags, and no limit excludes it."""
    return not flags.isdisjoint(cpu_flags())


def cpu_flags() -> frozenset[str]:
    """Return the CPU's flags without those that ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY exclude."""
    return without_limited_flags(hardware_flags(), os.environ)


@cache
def hardware_flags() -> frozenset[str]:
    """Return the CPU's flags from /proc/cpuinfo; an empty set if the file is missing."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                (frozenset(line.split()[2:]) for line in file if line.startswith("flags")), frozenset()
            )
    except OSError:
        return frozenset()
