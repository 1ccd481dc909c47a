"""Loading of the compiled decoding step."""

from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from handlers.core import device
from handlers.core.device import AMX, Device
from handlers.engines.base import PREPARED_DIR, EngineUnavailable
from handlers.engines.seq2seq import step_kernels
from handlers.engines.seq2seq.generation_types import GenerationBatch, GenerationParameters
from handlers.engines.seq2seq.native_seq2seq import NativeSeq2Seq
from handlers.engines.seq2seq.step_kernels import LEVELS, VERSION, library_name, load_step_kernels
from tests.unit.handlers.engines.seq2seq.test_decoder_layers import T5_SIZES
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
        (V4 | {"avx512_vnni", "avx512_bf16"}, "x86-64-v4-bf16"),
        (V4 | {"avx512_vnni", "avx_vnni"}, "x86-64-v4-vnni"),
        (V4 | {"avx512_bf16"}, "x86-64-v4"),
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("has_amx", [False, True])
def test_steps_are_compiled_unless_the_cpu_has_amx(
    dtype: torch.dtype,
    int8: bool,
    has_amx: bool,
    compiled_step: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(1)
    T5ForConditionalGeneration(T5Config(**T5_SIZES)).save_pretrained(tmp_path)
    (tmp_path / PREPARED_DIR).symlink_to(compiled_step)
    monkeypatch.setattr(device, "cpu_flags", lambda: V4 | (AMX if has_amx else set()))
    engine = NativeSeq2Seq(int8)
    engine.load(tmp_path, Device(torch.device("cpu"), dtype, 1))
    description = engine.describe()
    is_compiled = not has_amx or dtype == torch.float32
    assert (
        description["step_linear"]
        == description["decoder_layers"]
        == ("compiled" if is_compiled else "torch")
    )
    settings = [GenerationParameters(4, 4, num_beams=2)]
    assert len(engine.run(GenerationBatch([[5, 6, 7]], settings))[0]) == 4


@pytest.mark.parametrize("int8", [False, True])
def test_heads_of_other_sizes_are_computed_by_torch_in_bf16(
    int8: bool, compiled_step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bart(tmp_path)
    (tmp_path / PREPARED_DIR).symlink_to(compiled_step)
    monkeypatch.setattr(device, "cpu_flags", lambda: V4)
    engine = NativeSeq2Seq(int8)
    engine.load(tmp_path, Device(torch.device("cpu"), torch.bfloat16, 1))
    assert engine.describe()["attention"] == "torch"
    for num_beams in (1, 3):
        settings = [GenerationParameters(4, 4, num_beams)] * 2
        assert list(map(len, engine.run(GenerationBatch([[5, 6, 7], [8, 9]], settings)))) == [4, 4]
