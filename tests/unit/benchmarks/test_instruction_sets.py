"""Tests of holding processes to an older instruction set."""

import os

import pytest

from benchmarks import instruction_sets
from benchmarks.errors import BenchmarkError
from benchmarks.instruction_sets import INSTRUCTION_SETS, check, describe_libraries, held_to, hold_to
from handlers.core.device import hardware_flags
from handlers.core.instruction_sets import without_limited_flags

AVX2 = {
    "torch": "AVX2",
    "oneDNN": "Intel AVX2",
    "MKL": "Intel(R) Advanced Vector Extensions 2 (Intel(R) AVX2) enabled processors",
    "OpenVINO": "brgconv_avx2_f32, jit_f32",
}
BF16 = "Intel AVX-512 with Intel DL Boost and bfloat16 support"


@pytest.fixture
def environment(monkeypatch):
    variables = {"DNNL_MAX_CPU_ISA": "SSE41", "PATH": "/bin"}
    monkeypatch.setattr(os, "environ", variables)
    monkeypatch.setattr(instruction_sets, "hardware_flags", lambda: frozenset({"avx2", "fma"}))
    monkeypatch.setattr(instruction_sets, "describe_libraries", lambda: AVX2)
    return variables


def test_limits_are_set_for_all_libraries(environment):
    hold_to("avx2")
    assert held_to() == "avx2"
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    assert environment.items() >= limits.items() | {("MKL_ENABLE_INSTRUCTIONS", "AVX2")}
    assert "DNNL_MAX_CPU_ISA" not in environment


def test_instruction_set_that_the_cpu_lacks_is_refused(environment):
    before = dict(environment)
    with pytest.raises(BenchmarkError, match=r"cannot be held to avx2_vnni: it lacks avx_vnni"):
        hold_to("avx2_vnni")
    assert environment == before


@pytest.mark.parametrize(
    ("name", "library", "description"),
    [
        ("avx2", "torch", "AVX512"),
        ("avx2", "OpenVINO", "brgconv_avx512_f32"),
        ("avx2", "oneDNN", ""),
        ("avx512", "oneDNN", "Intel AVX-512 with Intel DL Boost"),
        ("avx512_vnni", "oneDNN", BF16),
        ("avx512_bf16", "oneDNN", "Intel AVX10.1 and Intel AMX with bfloat16 and 8-bit integer support"),
    ],
)
def test_library_beyond_the_limit_is_an_error(name, library, description):
    check(INSTRUCTION_SETS[name], AVX2)
    with pytest.raises(BenchmarkError, match=f"{library} does not respect the limit"):
        check(INSTRUCTION_SETS[name], AVX2 | {library: description})


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_required_flags_are_within_the_limit(name):
    """A CPU with exactly the required flags is not limited by the variables."""
    instruction_set = INSTRUCTION_SETS[name]
    flags = instruction_set.cpu_flags
    assert without_limited_flags(flags | {"amx_fp16"}, instruction_set.variables) == flags


@pytest.mark.full
@pytest.mark.skipif("avx2" not in hardware_flags(), reason="this CPU has no AVX2")
def test_limit_takes_effect_in_the_libraries(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    hold_to("avx2")  # checks that it does
    assert describe_libraries()["torch"] == "AVX2"
