"""Limits of the instruction sets that libraries may use, from the environment variables of oneDNN and PyTorch."""

from collections.abc import Mapping, Set

ONEDNN_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""oneDNN's limit in torch and in OpenVINO. The first that is set counts; the case of its value is ignored."""

TORCH_VARIABLE = "ATEN_CPU_CAPABILITY"
"""The limit of torch's own kernels."""

_ABOVE_SSE41 = ("amx_", "avx", "fma", "f16c", "vaes", "vpclmul")
_ABOVE_AVX = ("amx_", "avx512", "avx2", "avx_", "fma", "vaes", "vpclmul")

_DROPPED_BY_ONEDNN = {
    "sse41": _ABOVE_SSE41,
    "avx": _ABOVE_AVX,
    "avx2": ("amx_", "avx512", "avx_"),
    "avx2_vnni": ("amx_", "avx512"),
    "avx2_vnni_2": ("amx_", "avx512"),
    "avx512_core": ("amx_", "avx512_fp16", "avx512_bf16", "avx512_vnni", "avx_vnni"),
    "avx512_core_vnni": ("amx_", "avx512_fp16", "avx512_bf16"),
    "avx512_core_bf16": ("amx_", "avx512_fp16"),
    "avx512_core_fp16": ("amx_",),
    "avx10_1_512": ("amx_",),
    "avx512_core_amx": ("amx_fp16",),
    "avx10_1_512_amx": ("amx_fp16",),
}
"""Prefixes of the flags in /proc/cpuinfo beyond each value. oneDNN ignores other values.

https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
"""

_DROPPED_BY_TORCH = {"default": _ABOVE_SSE41, "avx2": ("amx_", "avx512")}
"""The same for torch, whose only other value on x86-64 is "avx512"."""


def without_limited_flags(flags: Set[str], environment: Mapping[str, str]) -> frozenset[str]:
    """Return the CPU flags that libraries may use under the limits that the environment sets."""
    onednn = next((environment[name] for name in ONEDNN_VARIABLES if environment.get(name)), "")
    dropped = _DROPPED_BY_ONEDNN.get(onednn.lower(), ())
    dropped += _DROPPED_BY_TORCH.get(environment.get(TORCH_VARIABLE, ""), ())
    return frozenset(flag for flag in flags if not flag.startswith(dropped))
