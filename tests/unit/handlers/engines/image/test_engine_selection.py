"""Selection of an image classification engine, with the reasons for replacements."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch

from handlers.core.device import Device
from handlers.engines.base import PREPARED_DIR
from handlers.engines.image import engine_selection, int8_selection
from handlers.engines.image.engine_selection import select_engine
from handlers.engines.image.int8_agreement import (
    INT8_GRAPH,
    MIN_AGREEMENT,
    CheckImages,
    read_check_images,
    write_check_images,
)
from handlers.engines.image.int8_selection import MIN_SPEEDUP
from handlers.engines.image.speed_comparison import measure_speedup
from tests.unit.handlers.engines.image.conftest import BF16, FP32, SMALL, SPEC, levels


def test_cpu_selects_openvino(converted):
    engine, reason = select_engine(converted, BF16, SMALL)
    assert engine.name == "openvino"
    assert reason == "the fastest on CPUs"
    assert engine.run(levels(SMALL, 2)).shape == (2, 7)


def test_torch_uses_one_thread_with_openvino(converted):
    for engine, threads in (("torch", 2), ("openvino", 1)):
        torch.set_num_threads(2)
        select_engine(converted, FP32, SMALL, engine=engine)
        assert torch.get_num_threads() == threads


def test_configured_torch_is_selected(small, caplog):
    engine, reason = select_engine(small, FP32, SMALL, engine="torch")
    assert (engine.name, reason) == ("torch", "requested in model-config.yaml")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("precision", "speedup", "selected"),
    [
        ("auto", MIN_SPEEDUP, "int8"),
        ("auto", MIN_SPEEDUP - 0.001, "fp32"),
        ("int8", 0.0, "int8"),
        ("fp32", 9.0, "fp32"),
    ],
)
@pytest.mark.full
def test_calibrated_network_is_verified_and_compared(calibrated, monkeypatch, precision, speedup, selected):
    def measure_and_replace(*args):
        assert all(measured > 0 for measured in measure_speedup(*args))
        return [speedup, speedup]

    monkeypatch.setattr(int8_selection, "measure_speedup", measure_and_replace)
    engine, reason = select_engine(calibrated, FP32, SPEC, precision=precision)
    assert reason == "the fastest on CPUs"
    facts = engine.describe()
    int8 = facts.pop("int8", None)
    assert (facts["engine"], facts["network"]) == ("openvino", "archive")
    assert facts["precision"] == selected
    assert engine.run(levels(SPEC, 2)).shape == (2, 13)
    if precision == "fp32":
        assert int8 is None
        return
    assert (int8["agreement_here"], int8["images_here"]) == (1.0, 8)
    assert int8["agreement_at_packing"] >= MIN_AGREEMENT
    if precision == "auto":
        assert int8["compared_with"] == "fp32"


@pytest.mark.full
def test_wrong_stored_labels_reject_a_real_int8_network(calibrated, tmp_path):
    folder = shutil.copytree(calibrated, tmp_path / "model")
    check = read_check_images(folder)
    write_check_images(folder / PREPARED_DIR, CheckImages(check.pixels, (check.labels + 1) % 10))
    engine, reason = select_engine(folder, FP32, SPEC, precision="int8")
    assert engine.describe()["precision"] == "fp32"
    assert reason.startswith("int8 predicts another label than fp32 for 8 of the 8 stored images on this CPU")


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("auto", "the archive has no int8 network; pack it with --calibrate"),
        ("torch", "int8 requires handler.engine: openvino or auto, and a CPU"),
    ],
)
def test_missing_int8_is_replaced_with_a_reason(converted, caplog, engine, message):
    chosen, reason = select_engine(converted, FP32, SMALL, engine=engine, precision="int8")
    assert chosen.describe()["precision"] == "fp32"
    assert reason.startswith(message)
    assert message in caplog.text


@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_torch_is_selected_without_openvino(small, monkeypatch, caplog, engine):
    monkeypatch.setitem(sys.modules, "openvino", None)
    chosen, reason = select_engine(small, FP32, SMALL, engine=engine)
    assert chosen.name == "torch"
    assert reason.startswith("cannot load openvino: OpenVINO is not installed here (")
    assert reason.endswith("; no other engine is available")
    assert "OpenVINO is not installed" in caplog.text
    assert chosen.run(levels(SMALL, 1)).shape == (1, 7)


def test_torch_is_selected_if_openvino_fails_to_load(small, tmp_path, caplog):
    shutil.copytree(small, tmp_path / "model")
    (tmp_path / "model" / PREPARED_DIR).mkdir()
    (tmp_path / "model" / PREPARED_DIR / "openvino.xml").write_text("<net>")
    chosen, reason = select_engine(tmp_path / "model", FP32, SMALL)
    assert chosen.name == "torch"
    assert reason.startswith("cannot load openvino: RuntimeError")


def test_configured_compiled_engine_without_package_is_replaced_with_a_reason(converted, caplog):
    chosen, reason = select_engine(converted, FP32, SMALL, engine="torch-compiled")
    assert chosen.name == "openvino"
    assert reason == (
        "cannot load torch-compiled: the archive has no compiled network; pack it with handler.engine: torch-compiled"
        "; the fastest engine that is available"
    )
    assert "torch-compiled" in caplog.text


def test_faulty_weights_raise_the_error_of_torch(small, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(small, folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(index): f"label {index}" for index in range(8)}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="mismatched"):
        select_engine(folder, FP32, SMALL)


class EngineStub:
    """An engine of any name that always loads."""

    def __init__(self, name):
        self.name = name

    def load(self, folder, device):
        pass


@pytest.mark.parametrize(
    ("configured", "expected", "reason"),
    [
        ("auto", "torch", "the engine for GPUs"),
        ("torch-compiled", "torch-compiled", "requested in model-config.yaml"),
        (
            "openvino",
            "torch",
            "cannot load openvino: the openvino engine supports only CPUs, and this worker uses a GPU; "
            "the engine for GPUs",
        ),
    ],
)
def test_gpu_selects_torch(tmp_path, monkeypatch, configured, expected, reason):
    monkeypatch.setattr(engine_selection, "TorchClassifier", lambda spec, most: EngineStub("torch"))
    monkeypatch.setattr(
        engine_selection, "TorchCompiledClassifier", lambda spec, most: EngineStub("torch-compiled")
    )
    gpu = replace(FP32, torch_device=torch.device("cuda:0"))
    engine, why = select_engine(tmp_path, gpu, SMALL, engine=configured)
    assert (engine.name, why) == (expected, reason)


def test_int8_on_a_gpu_is_replaced_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_selection, "TorchClassifier", lambda spec, most: EngineStub("torch"))
    (tmp_path / PREPARED_DIR).mkdir()
    (tmp_path / PREPARED_DIR / INT8_GRAPH).touch()
    gpu = Device(torch.device("cuda:0"), torch.bfloat16, 1)
    _, why = select_engine(tmp_path, gpu, SMALL, precision="int8")
    assert why == "int8 requires handler.engine: openvino or auto, and a CPU; the engine for GPUs"
