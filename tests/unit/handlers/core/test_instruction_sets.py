"""Tests of the limits of instruction sets."""

import pytest

from handlers.core import device
from handlers.core.device import AMX, FAST_INT8, has_any
from handlers.core.instruction_sets import without_limited_flags
from handlers.engines.base import EngineUnavailable
from handlers.engines.seq2seq.step_kernels import LEVELS, load_step_kernels

SSE = {"sse4_1", "popcnt"}
AVX2 = {*SSE, "avx", "avx2", "fma", "f16c"}
AVX512 = {*AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
VNNI = {*AVX512, "avx512_vnni", "avx_vnni"}
BF16 = {*VNNI, "avx512_bf16"}
XEON = {*BF16, "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, XEON),
        ({"ONEDNN_MAX_CPU_ISA": ""}, XEON),
        ({"ONEDNN_MAX_CPU_ISA": "ALL"}, XEON),
        ({"ONEDNN_MAX_CPU_ISA": "unknown"}, XEON),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, XEON),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_FP16"}, {*BF16, "avx512_fp16"}),
        ({"ONEDNN_MAX_CPU_ISA": "avx512_core_bf16"}, BF16),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, VNNI),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, AVX512),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"}, {*AVX2, "avx_vnni"}),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, AVX2),
        ({"DNNL_MAX_CPU_ISA": "AVX2"}, AVX2),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "DNNL_MAX_CPU_ISA": "AVX2"}, AVX512),
        ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, SSE),
        ({"ATEN_CPU_CAPABILITY": "avx512"}, XEON),
        ({"ATEN_CPU_CAPABILITY": "avx2"}, {*AVX2, "avx_vnni"}),
        ({"ATEN_CPU_CAPABILITY": "default"}, SSE),
        ({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, AVX2),
    ],
)
def test_flags_beyond_a_limit_are_dropped(variables, expected):
    assert without_limited_flags(XEON, variables) == expected


def test_limit_changes_precisions_and_the_compiled_decoding_step(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "hardware_flags", lambda: LEVELS["x86-64-v3"] | XEON)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    assert has_any(AMX)
    assert has_any(FAST_INT8)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not has_any(AMX)
    assert not has_any(FAST_INT8)
    with pytest.raises(EngineUnavailable, match=r"step-kernels-x86-64-v3\.so is missing"):
        load_step_kernels(tmp_path)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    with pytest.raises(EngineUnavailable, match="lacks avx2"):
        load_step_kernels(tmp_path)
