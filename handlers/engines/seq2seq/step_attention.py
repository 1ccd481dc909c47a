"""Attention of a decoding step in compiled code: built at packing, for bf16 on CPUs with AVX-512.

For few queries and long caches torch's products take two to three times as long as memory needs to give the caches.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handlers.core.device import cpu_flags
from handlers.engines.base import EngineUnavailable

if TYPE_CHECKING:
    from torch import Tensor

LIBRARY = "step-attention.so"
SIZES = frozenset({32, 64, 128})
"""Of a head, that there is code for."""

_NEEDED = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})  # x86-64-v4
_SOURCE = Path(__file__).with_suffix(".cpp")
_FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-fno-exceptions", "-fopenmp", "-ffp-contract=fast"),
    *("-march=x86-64-v4", "-mprefer-vector-width=512"),
)


def build(target: Path) -> dict[str, Any]:
    """Compile into the folder `target` with g++, in a second; gives the facts about it.

    The result is the same for all CPUs with AVX-512. Raises EngineUnavailable where it cannot be made.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise EngineUnavailable("it is for x86-64 with Linux")
    compiler = shutil.which("g++")
    if compiler is None:
        raise EngineUnavailable("g++ is not installed")
    with tempfile.TemporaryDirectory() as work:
        shutil.copy(_SOURCE, work)  # so that no path of this machine is in the result
        _run([compiler, *_FLAGS, "-c", _SOURCE.name, "-o", "code.o"], work)
        # Linked with nothing: OpenMP is then torch's own, with its threads.
        _run([compiler, "-shared", "-nodefaultlibs", "-s", "code.o", "-o", LIBRARY], work)
        shutil.copy(Path(work, LIBRARY), target)
    return {
        "compiler": f"g++ {_run([compiler, '-dumpfullversion'], None).strip()}",
        "cpu_flags": sorted(_NEEDED),
    }


def _run(command: list[str], folder: str | None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        raise EngineUnavailable(f"g++ failed: {words[0][:150]}")
    return done.stdout


class _Queries(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("row_step", "texts", "beams", "heads")),
    )


class _Source(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *((name, ctypes.c_int64) for name in ("text_step", "head_step", "length")),
        *((name, ctypes.c_void_p) for name in ("lengths", "bias")),
        ("bias_step", ctypes.c_int64),
    )


class StepAttention:
    """softmax(q k^T + bias) v, computed in float32."""

    def __init__(self, folder: Path, size: int) -> None:
        """From the `folder` that packing has prepared, for heads of `size`. Raises EngineUnavailable."""
        if size not in SIZES:
            raise EngineUnavailable(f"there is none for heads of {size}")
        if not (folder / LIBRARY).exists():
            raise EngineUnavailable("the archive has none")
        if missing := sorted(_NEEDED - cpu_flags()):
            raise EngineUnavailable(f"this CPU lacks {', '.join(missing)}")
        try:
            self._function: Any = ctypes.CDLL(str(folder / LIBRARY)).step_attention
        except (OSError, AttributeError) as error:
            raise EngineUnavailable(f"it does not load: {error}") from error
        self._function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        self._function.restype = None

    def __call__(
        self, q: "Tensor", k: "Tensor", v: "Tensor", lengths: "Tensor | None", bias: "Tensor | None" = None
    ) -> "Tensor":
        """q [texts, beams, heads, size], k and v [texts, heads, length, size] -> [texts * beams, heads * size].

        `lengths` int64 [texts]: how many keys of each text count; None: all. `bias` [1, heads, 1, length] is added to
        the scores. All but lengths in bf16; k and v have the same strides.
        """
        texts, beams, heads, size = q.shape
        result = q.new_empty(texts * beams, heads * size)
        queries = _Queries(q.data_ptr(), q.stride(1) if beams > 1 else q.stride(0), texts, beams, heads)
        source = _Source(
            *(k.data_ptr(), v.data_ptr(), k.stride(0), k.stride(1), k.shape[2]),
            *(None if each is None else each.data_ptr() for each in (lengths, bias)),
            0 if bias is None else bias.stride(1),
        )
        self._function(ctypes.byref(queries), ctypes.byref(source), result.data_ptr(), size)
        return result
