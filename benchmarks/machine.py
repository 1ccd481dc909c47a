"""Facts about the machine and the versions of packages, for the results."""

import platform
import shlex
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.instruction_sets import held_to
from handlers.core.device import cpu_flags, usable_cores

_CPU_FLAGS = ["avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16"]
_CPU_FLAGS += ["amx_tile", "amx_bf16", "amx_int8"]
_PACKAGES = ["torch", "torchvision", "transformers", "openvino", "nncf"]
_PACKAGES += ["simplejpeg", "pillow", "torchserve", "grpcio"]


def collect_facts() -> dict[str, Any]:
    """Return facts for the JSON results; the keys are always the same."""
    return {
        "cpu": _find_cpu(),
        "cores": usable_cores(),
        "isa": held_to(),
        "flags": [flag for flag in _CPU_FLAGS if flag in cpu_flags()],
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "gpu": _find_gpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": _list_versions(),
        "command": f"scripts/{shlex.join(sys.argv[1:])}",
    }


def describe_machine(facts: dict[str, Any]) -> str:
    """Return a line about the machine for the reports."""
    fast = [flag for flag in facts["flags"] if flag.startswith(("amx_", "avx512_", "avx_"))]
    gpu = f", {facts['gpu']}" if facts["gpu"] else ", no GPU"
    limit = f" limited to {facts['isa']}" if facts["isa"] else ""
    return (
        f"{facts['cores']} cores of {facts['cpu']}{limit} ({', '.join(fast) or 'no fast bf16 or int8'}){gpu}"
    )


def _find_cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _find_gpu() -> str | None:
    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


def _list_versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
