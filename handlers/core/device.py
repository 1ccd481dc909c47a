"""Where a worker computes: device, precision and threads."""

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handlers.core.config import HandlerConfig

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """`torch_device` and `dtype` for the network's weights; `threads` for one operation on the CPU."""

    torch_device: "torch.device"
    dtype: "torch.dtype"
    threads: int

    @classmethod
    def choose(cls, gpu_id: int | None, config: HandlerConfig, workers: int = 1) -> "Device":
        """The worker's GPU where TorchServe gives one (`gpu_id`), else the CPU.

        `workers` is how many processes of this model share the cores.
        """
        import torch

        on_gpu = gpu_id is not None and torch.cuda.is_available()
        if gpu_id is not None and not on_gpu:
            logger.warning(
                "TorchServe gives GPU %s, but this torch cannot use it: computing on the CPU", gpu_id
            )
        device = torch.device(f"cuda:{gpu_id}" if on_gpu else "cpu")
        fast_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else has_amx()
        precision = config.precision
        if precision == "auto":
            precision = "bf16" if fast_bf16 else "fp32"
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        threads = max(1, usable_cores() // max(1, workers)) if config.threads == "auto" else config.threads
        return cls(device, dtype, threads)

    def apply_threads(self) -> None:
        """Set this process's thread counts; once, before the first operation."""
        import torch

        torch.set_num_threads(self.threads)

    def describe(self) -> dict[str, Any]:
        precision = {"float32": "fp32", "bfloat16": "bf16"}[str(self.dtype).removeprefix("torch.")]
        return {"device": str(self.torch_device), "precision": precision, "threads": self.threads}


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


def has_amx() -> bool:
    """Whether the CPU has AMX tiles for bf16 (Linux names them in /proc/cpuinfo)."""
    try:
        with open("/proc/cpuinfo") as file:
            return any("amx_bf16" in line.split() for line in file if line.startswith("flags"))
    except OSError:
        return False
