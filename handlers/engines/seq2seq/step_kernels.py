"""The compiled code of a decoding step. Packing builds it for five levels of x86-64; a worker loads the best one."""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from handlers.core.device import cpu_flags
from handlers.engines.base import EngineUnavailable

_V3 = frozenset({"abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"})

_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

LEVELS: Mapping[str, frozenset[str]] = {
    "x86-64-v4-bf16": _V4 | {"avx512_vnni", "avx512_bf16"},
    "x86-64-v4-vnni": _V4 | {"avx512_vnni"},
    "x86-64-v4": _V4,
    "x86-64-v3-vnni": _V3 | {"avx_vnni"},
    "x86-64-v3": _V3,
}
"""The CPU flags in /proc/cpuinfo of each level that the code is compiled for, the best level first.

The names are g++'s, with `-vnni` for int8 products, and `-bf16` for int8 and bf16 products. The instruction sets of
x86-64-v3 are those of the psABI of x86-64, section 3.1.1, except for the ones that every CPU with AVX2 has. `abm` is
LZCNT.
"""


_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64

_FUNCTIONS: Mapping[str, tuple[Any, Sequence[Any]]] = {
    "step_kernels_version": (_INT, ()),
    "step_linear_panel_width": (_INT, ()),
    "step_linear_group_size": (_INT, (_INT,)),
    "step_attention": (None, (_POINTER, _POINTER, _POINTER, _INT, _INT)),
    "step_linear": (None, (_POINTER, _POINTER, _INT, _POINTER, _POINTER)),
    "decoder_layers": (None, (_POINTER, _POINTER, _POINTER, _POINTER)),
    "quantize_rows": (None, (_POINTER, _INT, _INT, _INT, _POINTER, _POINTER)),
    "finish_rows": (None, (_POINTER, _INT, _INT, _INT, _POINTER, _POINTER, _POINTER, _INT)),
}
"""The functions of the library, with the types of their results and arguments."""


VERSION = 4
"""The version of these functions and their structures. `step_kernels.h` says when to increase it."""


def library_name(level: str) -> str:
    """Return the file name of the compiled code, in the folder of prepared files."""
    return f"step-kernels-{level}.so"


def load_step_kernels(folder: Path) -> ctypes.CDLL:
    """Return the library for the best level that this CPU supports and whose file exists.

    Args:
        folder: The files that packing prepared.

    Raises:
        EngineUnavailable: The library is missing, cannot be loaded, has another version, or needs another CPU.
    """
    flags = cpu_flags()
    supported = [level for level, required in LEVELS.items() if required <= flags]
    if not supported:
        raise EngineUnavailable(f"this CPU lacks {', '.join(sorted(LEVELS['x86-64-v3'] - flags))}")
    names = [library_name(level) for level in supported]
    name = next((name for name in names if (folder / name).exists()), None)
    if name is None:
        raise EngineUnavailable(f"{names[0]} is missing from the archive; pack the model again")
    try:
        library = ctypes.CDLL(str(folder / name))
        version = library.step_kernels_version()
        if version != VERSION:
            raise EngineUnavailable(
                f"{name} has version {version} instead of {VERSION}; pack the model again"
            )
        for function, types in _FUNCTIONS.items():
            getattr(library, function).restype, getattr(library, function).argtypes = types
    except (OSError, AttributeError) as error:
        raise EngineUnavailable(f"cannot load {name}: {error}") from error
    return library
