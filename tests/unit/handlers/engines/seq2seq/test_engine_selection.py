"""Selection of a generation engine."""

from pathlib import Path

import pytest
import torch

from handlers.core.device import Device
from handlers.engines.base import PREPARED_DIR
from handlers.engines.seq2seq import step_kernels
from handlers.engines.seq2seq.engine_selection import select_engine
from handlers.engines.seq2seq.generation_types import GenerationBatch, GenerationParameters
from handlers.engines.seq2seq.step_kernels import LEVELS
from tests.unit.handlers.text.tiny import write_bart
from tests.unit.handlers.text.tiny_architectures import WRITERS

FP32 = Device(torch.device("cpu"), torch.float32, 1)


def test_configured_engine_is_selected(tmp_path: Path) -> None:
    write_bart(tmp_path)
    names = {name: select_engine(tmp_path, FP32, engine=name)[0].name for name in ("auto", "native", "torch")}
    assert names == {"auto": "native", "native": "native", "torch": "torch"}


def test_unavailable_int8_is_replaced_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bart(tmp_path)
    engine, reason = select_engine(tmp_path, FP32, engine="torch", precision="int8")
    assert (engine.name, reason) == ("torch", "int8 requires handler.engine: native")
    monkeypatch.setattr("handlers.engines.seq2seq.engine_selection.has_any", lambda flags: False)
    monkeypatch.setattr(step_kernels, "cpu_flags", lambda: LEVELS["x86-64-v3"])
    engine, reason = select_engine(tmp_path, FP32, precision="int8")
    assert (engine.name, engine.describe().get("precision")) == ("native", None)
    assert reason.startswith(
        "int8 requires a CPU with one of amx_int8, avx512_vnni, avx_vnni, or AVX2: step-kernels-"
    )


def test_compiled_step_provides_int8_without_int8_instructions(
    compiled_step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bart(tmp_path)
    (tmp_path / PREPARED_DIR).symlink_to(compiled_step)
    monkeypatch.setattr("handlers.engines.seq2seq.engine_selection.has_any", lambda flags: False)
    engine, reason = select_engine(tmp_path, FP32, precision="int8")
    description = engine.describe()
    assert (description["precision"], description["step_linear"]) == ("int8", "compiled")
    assert reason == "the fastest for this architecture"


def test_unknown_architecture_runs_in_the_torch_engine(tmp_path: Path) -> None:
    folder = WRITERS["led"](tmp_path)
    engine, reason = select_engine(folder, FP32)
    assert (engine.name, engine.describe()["architecture"]) == ("torch", "LEDForConditionalGeneration")
    assert reason == (
        "the native engine supports bart, marian, mbart, mt5, mvp, pegasus, plbart and t5, not led"
    )
    assert engine.run(GenerationBatch([(5, 6)], [GenerationParameters(3)]))
