"""What the run was made on: the machine and the versions, for the results."""

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

from benchmarks.in_process import cores

_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimddp",
)
_PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "openvino",
    "nncf",
    "simplejpeg",
    "pillow",
    "torchserve",
    "grpcio",
)
_FOLDERS = ("--out", "--work", "--images")


def facts() -> dict[str, Any]:
    """JSON-able; keys are always there."""
    cpu, flags = _cpu()
    return {
        "cpu": cpu,
        "cores": cores(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "gpu": _gpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "command": command(sys.argv[1:]),
    }


def command(arguments: Sequence[str]) -> str:
    """What was typed, without the folders: they are nobody's business but the machine's."""
    kept = ["scripts/bench"]
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before not in _FOLDERS and argument.partition("=")[0] not in _FOLDERS:
            kept.append(argument)
    return " ".join(kept)


def sentence(machine: dict[str, Any]) -> str:
    """The machine in a line, for a person."""
    fast = [flag for flag in machine["flags"] if flag.startswith(("amx_", "avx512_", "avx_"))]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ", no GPU"
    return f"{machine['cores']} cores of {machine['cpu']} ({', '.join(fast) or 'no fast bf16 or int8'}){gpu}"


def _cpu() -> tuple[str, set[str]]:
    try:
        with open("/proc/cpuinfo") as file:
            lines = dict(
                line.split(":", 1) for line in file.read().replace("\t", "").splitlines() if ":" in line
            )
    except OSError:
        lines = {}
    flags = lines.get("flags", lines.get("Features", ""))
    return lines.get("model name", platform.processor() or platform.machine()).strip(), set(flags.split())


def _gpu() -> str | None:
    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
