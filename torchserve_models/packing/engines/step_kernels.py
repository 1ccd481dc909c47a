"""Compilation of the decoding step for CPUs with AVX2 and with AVX-512: attention, linear layers, layers and int8.

For the few rows of a step, torch's matrix products take up to three times as long as reading caches and weights from
memory.
"""

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from handlers.engines.base import EngineUnavailable
from handlers.engines.seq2seq.step_kernels import LEVELS, library_name

_SOURCES = tuple(
    Path(__file__).with_name(f"{name}.cpp")
    for name in ("step_attention", "step_linear", "decoder_layers", "int8_rows")
)
_HEADERS = tuple(Path(__file__).with_name(name) for name in ("step_kernels.h", "vectors.h"))
_COMPILER_FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-fno-exceptions", "-fopenmp", "-ffp-contract=fast"),
    "-mprefer-vector-width=512",
)
_TARGETS = {
    "x86-64-v4-bf16": ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"),
    "x86-64-v4-vnni": ("-march=x86-64-v4", "-mavx512vnni"),
    "x86-64-v4": ("-march=x86-64-v4",),
    "x86-64-v3-vnni": ("-march=x86-64-v3", "-mavxvnni"),
    "x86-64-v3": ("-march=x86-64-v3",),
}
"""The options of g++ for each of the LEVELS."""


def build(target: Path) -> dict[str, Any]:
    """Compile a library for each of the LEVELS with g++ to the folder `target`, which takes a few seconds.

    The libraries are the same on every machine with this compiler.

    Returns:
        The version of the compiler and the levels.

    Raises:
        EngineUnavailable: The platform is not x86-64 Linux, or g++ is missing or failed.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise EngineUnavailable("the compiled decoding step requires x86-64 Linux")
    compiler = shutil.which("g++")
    if compiler is None:
        raise EngineUnavailable("g++ is not installed")
    with tempfile.TemporaryDirectory() as folder:
        for source in (*_SOURCES, *_HEADERS):
            shutil.copy(source, folder)  # so that the library contains no path of this machine
        levels = [level for level in LEVELS if _compile_level(compiler, level, folder)]
        for level in levels:
            shutil.copy(Path(folder, library_name(level)), target)
    return {
        "compiler": f"g++ {_run([compiler, '-dumpfullversion'], None).strip()}",
        "levels": sorted(levels),
    }


def _compile_level(compiler: str, level: str, folder: str) -> bool:
    """Compile the library for a level. Return False if the assembler is too old for an optional level."""
    try:
        _compile(compiler, level, folder)
    except EngineUnavailable:
        if not level.endswith(("-vnni", "-bf16")):
            raise
        return False
    return True


def _compile(compiler: str, level: str, folder: str) -> None:
    """Compile the sources in `folder` to the library for a level, in the same folder."""
    objects = []
    for source in _SOURCES:
        objects.append(f"{source.stem}.o")
        target = [*_COMPILER_FLAGS, *_TARGETS[level]]
        _run([compiler, *target, "-c", source.name, "-o", objects[-1]], folder)
    # Linked without an OpenMP library, so that in a worker it uses the one of torch and its threads.
    _run([compiler, "-shared", "-nodefaultlibs", "-s", *objects, "-o", library_name(level)], folder)


def _run(command: list[str], folder: str | None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if "error" in line] or ["no message"]
        raise EngineUnavailable(f"g++ failed: {errors[0][:150]}")
    return result.stdout
