"""Tests of fp16 in the engine `torch`, on a CPU in place of a GPU without bf16."""

import shutil

import torch
from safetensors.torch import load_file, save_file

from handlers.core.device import Device
from handlers.engines.image.torch_classifier import TorchClassifier
from tests.unit.handlers.engines.image.conftest import FP32, SMALL, levels

FP16 = Device(torch.device("cpu"), torch.float16, 2)


def write_enlarged(small, folder) -> None:
    """Write the network `small` with logits that overflow in fp16."""
    shutil.copytree(small, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.startswith("classifier") and name.endswith("weight"))
    weights[name] *= 1e7
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def logits(folder, device: Device, spec=SMALL) -> tuple[torch.Tensor, str]:
    """Return the logits of noise, and the engine's precision."""
    engine = TorchClassifier(spec, 4)
    engine.load(folder, device)
    batch = levels(SMALL, 3)
    if spec.normalization is None:
        batch = batch.permute(0, 3, 1, 2) / 64 - 2
    return engine.run(batch), engine.describe()["precision"]


def test_fp16_logits_are_close_to_fp32(small):
    (fp16, precision), (fp32, _) = logits(small, FP16), logits(small, FP32)
    assert precision == "fp16"
    assert 0 < (fp16 - fp32).abs().max() < 0.05 * fp32.std()


def test_network_that_overflows_in_fp16_is_loaded_in_fp32(small, tmp_path, caplog):
    folder = tmp_path / "large"
    write_enlarged(small, folder)
    for spec in (SMALL, SMALL._replace(normalization=None)):
        (in_fp16, precision), (expected, _) = logits(folder, FP16, spec), logits(folder, FP32, spec)
        assert precision == "fp32"
        assert torch.equal(in_fp16, expected)
        assert in_fp16.isfinite().all()
    assert "too large for fp16" in caplog.text


def test_batch_that_overflows_in_fp16_is_computed_in_fp32(small, tmp_path, caplog, monkeypatch):
    folder = tmp_path / "large"
    write_enlarged(small, folder)
    monkeypatch.setattr(TorchClassifier, "_is_finite", lambda *_: True)  # as if only later images overflow
    engine = TorchClassifier(SMALL, 4)
    engine.load(folder, FP16)
    assert engine.describe()["precision"] == "fp16"
    expected, _ = logits(folder, FP32)
    for _ in range(2):
        assert torch.equal(engine.run(levels(SMALL, 3)), expected)
    assert caplog.text.count("too large for fp16, computing its batch in fp32") == 1
