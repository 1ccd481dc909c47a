"""Loading of the compiled decoding step."""

from pathlib import Path

import pytest
import torch

from handlers.core.device import Device
from handlers.engines.base import EngineUnavailable
from handlers.engines.seq2seq import step_kernels
from handlers.engines.seq2seq.native_seq2seq import NativeSeq2Seq
from handlers.engines.seq2seq.step_kernels import LEVELS, VERSION, library_name, load_step_kernels
from tests.unit.handlers.text.tiny import write_bart

V3, V4 = LEVELS["x86-64-v3"], LEVELS["x86-64-v4"]


def test_missing_or_incompatible_library_raises_engine_unavailable(
    compiled_step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_kernels, "cpu_flags", lambda: V3)
    with pytest.raises(EngineUnavailable, match=r"step-kernels-x86-64-v3\.so is missing from the archive"):
        load_step_kernels(tmp_path)
    (tmp_path / library_name("x86-64-v3")).write_bytes(b"nothing")
    with pytest.raises(EngineUnavailable, match=r"cannot load step-kernels-x86-64-v3\.so"):
        load_step_kernels(tmp_path)
    monkeypatch.setattr(step_kernels, "cpu_flags", lambda: V3 - {"avx2", "fma"})
    with pytest.raises(EngineUnavailable, match="lacks avx2, fma"):
        load_step_kernels(compiled_step)


def test_library_of_another_version_raises_engine_unavailable(
    compiled_step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_kernels, "VERSION", 0)
    with pytest.raises(EngineUnavailable, match=f"has version {VERSION} instead of 0; pack the model again"):
        load_step_kernels(compiled_step)


@pytest.mark.parametrize("present", [["x86-64-v4", "x86-64-v3"], ["x86-64-v3"]], ids=len)
@pytest.mark.parametrize(
    ("flags", "best"),
    [
        (V4 | {"avx512_vnni", "avx_vnni"}, "x86-64-v4-vnni"),
        (V4 | {"avx_vnni"}, "x86-64-v4"),
        (V3 | {"avx_vnni"}, "x86-64-v3-vnni"),
        (V4, "x86-64-v4"),
        *((V4 - {flag}, "x86-64-v3") for flag in sorted(V4 - V3)),
        (V3, "x86-64-v3"),
    ],
)
def test_best_supported_level_that_exists_is_loaded(
    flags: frozenset[str], best: str, present: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_kernels, "cpu_flags", lambda: flags)
    with pytest.raises(EngineUnavailable, match=f"{library_name(best)} is missing"):
        load_step_kernels(tmp_path)
    for level in present:
        (tmp_path / library_name(level)).write_bytes(b"nothing")
    expected = next(level for level in present if LEVELS[level] <= flags)
    with pytest.raises(EngineUnavailable, match=f"cannot load {library_name(expected)}"):
        load_step_kernels(tmp_path)


@pytest.mark.parametrize("flag", ["abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"])
def test_every_instruction_set_of_the_lowest_level_is_required(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_kernels, "cpu_flags", lambda: V4 - {flag})
    with pytest.raises(EngineUnavailable, match=f"this CPU lacks {flag}$"):
        load_step_kernels(tmp_path)


def test_engine_logs_the_reason_for_a_missing_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_bart(tmp_path)
    monkeypatch.setattr(step_kernels, "cpu_flags", lambda: V3)
    engine = NativeSeq2Seq()
    engine.load(tmp_path, Device(torch.device("cpu"), torch.float32, 1))
    assert engine.describe()["step_linear"] == "torch"
    assert "no compiled decoding step: step-kernels-x86-64-v3.so is missing" in caplog.text
