"""The engine `torch`: loading of weights, and the settings of the generation config."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from handlers.core.device import Device
from handlers.engines.seq2seq.generation_types import GenerationBatch, GenerationParameters
from handlers.engines.seq2seq.torch_seq2seq import TorchSeq2Seq
from tests.unit.handlers.text.tiny import write_bart, write_t5

FP32 = Device(torch.device("cpu"), torch.float32, 1)
INPUT = tuple(range(3, 20))


def batch(**parameters: Any) -> GenerationBatch:
    settings = GenerationParameters(**{"max_new_tokens": 12} | parameters)
    return GenerationBatch([INPUT], [settings])


def load_engine(folder: Path, device: Device = FP32) -> TorchSeq2Seq:
    engine = TorchSeq2Seq()
    engine.load(folder, device)
    return engine


def change_generation(folder: Path, **settings: Any) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_missing_weights_are_rejected(tmp_path: Path) -> None:
    weights = load_file(write_bart(tmp_path) / "model.safetensors")
    del weights["model.encoder.layers.0.fc1.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"encoder\.layers\.0\.fc1\.weight"):
        load_engine(tmp_path)


def test_pickled_weights_are_rejected(tmp_path: Path) -> None:
    weights = load_file(write_bart(tmp_path) / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_engine(tmp_path)


def test_model_that_samples_by_default_is_deterministic(tmp_path: Path) -> None:
    greedy = load_engine(write_t5(tmp_path)).run(batch(min_new_tokens=12))
    change_generation(tmp_path, do_sample=True, temperature=5.0, num_return_sequences=3, num_beams=3)
    engine = load_engine(tmp_path)
    assert [engine.run(batch(min_new_tokens=12)) for _ in range(3)] == [greedy] * 3


def test_setting_of_the_generation_config_is_respected(tmp_path: Path) -> None:
    plain = load_engine(write_t5(tmp_path)).run(batch())[0]
    change_generation(tmp_path, suppress_tokens=[plain[0]])
    assert plain[0] not in load_engine(tmp_path).run(batch())[0]


def test_generation_ends_at_any_of_several_end_tokens(tmp_path: Path) -> None:
    change_generation(write_t5(tmp_path), suppress_tokens=[1])
    plain = load_engine(tmp_path).run(batch())[0]
    assert len(plain) == 12
    change_generation(tmp_path, eos_token_id=[1, plain[-1], plain[2]])
    end = min(plain.index(plain[-1]), plain.index(plain[2]))
    assert load_engine(tmp_path).run(batch())[0] == plain[: end + 1]


def test_bfloat16_model_generates(tmp_path: Path) -> None:
    engine = load_engine(write_bart(tmp_path), Device(torch.device("cpu"), torch.bfloat16, 1))
    assert {weight.dtype for weight in engine._model.parameters()} == {torch.bfloat16}
    assert 1 <= len(engine.run(batch(num_beams=2))[0]) <= 12
