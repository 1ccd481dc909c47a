"""Hold this process and the processes that it starts to an instruction set, to measure as on an older CPU."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.errors import BenchmarkError, last_line
from handlers.core.device import hardware_flags
from handlers.core.instruction_sets import ONEDNN_VARIABLES, TORCH_VARIABLE
from torchserve_models.paths import ROOT

_HELD = "TORCHSERVE_MODELS_INSTRUCTION_SET"
"""Environment variable with the name of the instruction set that this process is held to."""


@dataclass(frozen=True)
class InstructionSet:
    """An instruction set to hold libraries to.

    Attributes:
        cpu_flags: The flags of /proc/cpuinfo that it needs.
        onednn: The limit for oneDNN in torch, OpenVINO and CTranslate2.
        torch: The limit for torch's own kernels.
        mkl: The limit for MKL in torch and CTranslate2.
        newer: Pattern of words in the libraries' descriptions of themselves that exceed this limit.
    """

    cpu_flags: frozenset[str]
    onednn: str
    torch: str
    mkl: str
    newer: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that set the limits. They take effect before the first operation."""
        limits = {ONEDNN_VARIABLES[0]: self.onednn, TORCH_VARIABLE: self.torch}
        # CTranslate2's own kernels use AVX2 by default, even with AVX-512. Its products are MKL's or oneDNN's.
        return limits | {"MKL_ENABLE_INSTRUCTIONS": self.mkl, "CT2_FORCE_CPU_ISA": "AVX2"}


_AVX2 = frozenset({"avx2", "fma"})
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
_VNNI = r"dl boost|deep learning"

INSTRUCTION_SETS: Mapping[str, InstructionSet] = {
    "avx2": InstructionSet(_AVX2, "AVX2", "avx2", "AVX2", rf"512|avx10|amx|{_VNNI}"),
    "avx2_vnni": InstructionSet(_AVX2 | {"avx_vnni"}, "AVX2_VNNI", "avx2", "AVX2", "512|avx10|amx"),
    "avx512": InstructionSet(_AVX512, "AVX512_CORE", "avx512", "AVX512", rf"avx10|amx|bf16|bfloat16|{_VNNI}"),
    "avx512_vnni": InstructionSet(
        _AVX512 | {"avx512_vnni"}, "AVX512_CORE_VNNI", "avx512", "AVX512_E1", "avx10|amx|bf16|bfloat16"
    ),
    "avx512_bf16": InstructionSet(
        _AVX512 | {"avx512_vnni", "avx512_bf16"}, "AVX512_CORE_BF16", "avx512", "AVX512_E3", "avx10|amx"
    ),
    "amx": InstructionSet(
        _AVX512 | {"amx_bf16", "amx_int8"}, "AVX512_CORE_AMX", "avx512", "AVX512_E4", "amx_fp16"
    ),
}
"""The instruction sets by name, in ascending order."""

_DESCRIPTIONS = {
    "torch": r"^torch: (.*)",
    "oneDNN": r"^onednn_verbose.*\bisa:(.*)",
    "MKL": r"^MKL_VERBOSE oneMKL.* architecture (.*?),? Lnx",
    "OpenVINO": r"^openvino: (.*)",
}
"""How libraries describe in the output what they compute with."""


def hold_to(name: str) -> None:
    """Set the limits in this process's environment, and check in a child process that they take effect.

    Raises:
        BenchmarkError: This CPU lacks the instruction set, or a library does not respect the limit.
    """
    instruction_set = INSTRUCTION_SETS[name]
    if missing := sorted(instruction_set.cpu_flags - hardware_flags()):
        raise BenchmarkError(f"this CPU cannot be held to {name}: it lacks {', '.join(missing)}")
    for variable in ONEDNN_VARIABLES:
        os.environ.pop(variable, None)
    os.environ.update(instruction_set.variables)
    check(instruction_set, describe_libraries())
    os.environ[_HELD] = name


def held_to() -> str | None:
    """Return the name of the instruction set that this process is held to; None without a limit."""
    return os.environ.get(_HELD)


def check(instruction_set: InstructionSet, descriptions: Mapping[str, str]) -> None:
    """Raise BenchmarkError if a library's description shows instructions beyond the limit, or is empty."""
    for library, description in descriptions.items():
        if not description or re.search(instruction_set.newer, description, re.IGNORECASE):
            shown = description or "no description"
            raise BenchmarkError(f"{library} does not respect the limit {instruction_set.onednn}: {shown}")


def describe_libraries() -> dict[str, str]:
    """Return what torch, its oneDNN and MKL, and OpenVINO compute with in a new process.

    Raises:
        BenchmarkError: The process failed.
    """
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", f"from {__name__} import _compute; _compute()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise BenchmarkError(f"cannot check the limit: {last_line(done.stderr)}")
    matches = {name: re.search(pattern, done.stdout, re.MULTILINE) for name, pattern in _DESCRIPTIONS.items()}
    if matches["MKL"] is None:  # torch can be built without MKL
        del matches["MKL"]
    return {name: match[1].strip() if match else "" for name, match in matches.items()}


def _compute() -> None:
    """Run an operation of each library. oneDNN and MKL print their instruction sets themselves."""
    import numpy as np
    import torch

    from handlers.engines.image.openvino_runtime import compile_model, import_openvino

    print("torch:", torch.backends.cpu.get_cpu_capability())
    torch.rand(64, 64) @ torch.rand(64, 64)
    torch.conv2d(torch.rand(1, 16, 8, 8).to_mkldnn(), torch.rand(16, 16, 3, 3).to_mkldnn())

    openvino = import_openvino()
    image = openvino.opset13.parameter([1, 16, 8, 8], openvino.Type.f32)
    weights = openvino.opset13.constant(np.ones((16, 16, 3, 3), np.float32))
    result = openvino.opset13.convolution(image, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    network = compile_model(openvino.Core(), openvino.Model([result], [image]), settings).get_runtime_model()
    kernels = {str(operation.get_rt_info()["primitiveType"].astype(str)) for operation in network.get_ops()}
    print("openvino:", ", ".join(sorted(kernels)), flush=True)
