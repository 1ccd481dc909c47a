"""Which engine is taken, and that whatever is missing is said."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch

from handlers.core.device import Device
from handlers.engines import choice
from handlers.engines.base import FACTS, PREPARED
from handlers.engines.choice import choose
from handlers.engines.openvino_classifier import INT8
from handlers.vision.types import VisionConfig
from tests.unit.handlers.engines.conftest import BF16, FP32, SMALL, SPEC, levels


@pytest.fixture
def cpu(monkeypatch):
    """Sets the flags of the CPU that the choice sees."""
    flags: set[str] = set()
    monkeypatch.setattr(choice, "has_any", lambda wanted: not flags.isdisjoint(wanted))
    return flags


def test_a_cpu_gets_openvino(small):
    engine, reason = choose(small, VisionConfig(), BF16, SMALL)
    assert engine.name == "openvino"
    assert reason == "the fastest on CPUs"
    assert engine.run(levels(SMALL, 2)).shape == (2, 7)


def test_torch_computes_in_one_thread_beside_openvino(small):
    for engine, threads in (("torch", 2), ("openvino", 1)):
        torch.set_num_threads(2)
        choose(small, VisionConfig(engine=engine), FP32, SMALL)
        assert torch.get_num_threads() == threads


def test_torch_by_name(small, caplog):
    engine, reason = choose(small, VisionConfig(engine="torch"), FP32, SMALL)
    assert (engine.name, reason) == ("torch", "asked for")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("precision", "flags", "expected"),
    [
        ("auto", {"avx512_vnni"}, "int8"),
        ("auto", {"avx_vnni"}, "int8"),
        ("auto", {"amx_int8"}, "int8"),
        ("auto", {"avx2"}, "fp32"),
        ("int8", {"avx2"}, "int8"),
        ("fp32", {"avx512_vnni"}, "fp32"),
    ],
)
@pytest.mark.full
def test_int8_where_it_was_calibrated_and_the_cpu_gains(calibrated, cpu, precision, flags, expected):
    cpu |= flags
    engine, _ = choose(calibrated, VisionConfig(precision=precision), FP32, SPEC)
    assert engine.describe() == {"engine": "openvino", "precision": expected, "network": "archive"}


@pytest.mark.parametrize(("precision", "expected"), [("auto", "fp32"), ("int8", "int8")])
def test_int8_that_agrees_too_seldom_is_only_taken_by_name(calibrated, tmp_path, cpu, precision, expected):
    cpu |= {"avx512_vnni"}
    folder = shutil.copytree(calibrated, tmp_path / "model")
    facts = json.loads((folder / PREPARED / FACTS).read_text())
    facts["openvino"]["int8"]["agreement"] = 0.91
    (folder / PREPARED / FACTS).write_text(json.dumps(facts))
    engine, reason = choose(folder, VisionConfig(precision=precision), FP32, SPEC)
    assert engine.describe()["precision"] == expected
    assert ("not int8: 91.0% of its images" in reason) == (expected == "fp32")


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("auto", "not openvino: the archive has no int8 network; pack it with --calibrate"),
        ("torch", "int8 needs the engine openvino on a CPU"),
    ],
)
def test_int8_that_is_not_there_is_said(small, caplog, engine, message):
    chosen, reason = choose(small, VisionConfig(engine=engine, precision="int8"), FP32, SMALL)
    assert chosen.describe()["precision"] == "fp32"
    assert reason.startswith(message)
    assert message in caplog.text


@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_without_the_library_torch_takes_over(small, monkeypatch, caplog, engine):
    monkeypatch.setitem(sys.modules, "openvino", None)
    chosen, reason = choose(small, VisionConfig(engine=engine), FP32, SMALL)
    assert chosen.name == "torch"
    assert reason.startswith("not openvino: OpenVINO is not installed here (")
    assert reason.endswith("; what is left")
    assert "OpenVINO is not installed" in caplog.text
    assert chosen.run(levels(SMALL, 1)).shape == (1, 7)


def test_a_network_that_openvino_cannot_take(small, tmp_path, caplog):
    shutil.copytree(small, tmp_path / "model")
    (tmp_path / "model" / PREPARED).mkdir()
    (tmp_path / "model" / PREPARED / "openvino.xml").write_text("<net>")
    chosen, reason = choose(tmp_path / "model", VisionConfig(), FP32, SMALL)
    assert chosen.name == "torch"
    assert reason.startswith("not openvino: RuntimeError")


def test_compiled_by_name_without_a_package(small, caplog):
    chosen, reason = choose(small, VisionConfig(engine="torch-compiled"), FP32, SMALL)
    assert chosen.name == "openvino"
    assert reason == (
        "not torch-compiled: the archive has no compiled network; pack it with handler.engine: torch-compiled; "
        "the next best"
    )
    assert "torch-compiled" in caplog.text


def test_wrong_weights_are_told_by_torch(small, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(small, folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(index): f"label {index}" for index in range(8)}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="mismatched"):
        choose(folder, VisionConfig(), FP32, SMALL)


class Fake:
    """An engine of any name that always loads."""

    def __init__(self, name):
        self.name = name

    def load(self, folder, device):
        pass


@pytest.mark.parametrize(
    ("asked", "expected", "reason"),
    [
        ("auto", "torch", "the engine for GPUs"),
        ("torch-compiled", "torch-compiled", "asked for"),
        (
            "openvino",
            "torch",
            "not openvino: it computes on a CPU, and this worker has a GPU; the engine for GPUs",
        ),
    ],
)
def test_a_gpu_gets_torch(tmp_path, monkeypatch, asked, expected, reason):
    monkeypatch.setattr(choice, "TorchClassifier", lambda spec, most: Fake("torch"))
    monkeypatch.setattr(choice, "TorchCompiledClassifier", lambda spec, most: Fake("torch-compiled"))
    gpu = replace(FP32, torch_device=torch.device("cuda:0"))
    engine, why = choose(tmp_path, VisionConfig(engine=asked), gpu, SMALL)
    assert (engine.name, why) == (expected, reason)


def test_int8_on_a_gpu_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "TorchClassifier", lambda spec, most: Fake("torch"))
    (tmp_path / PREPARED).mkdir()
    (tmp_path / PREPARED / INT8).touch()
    gpu = Device(torch.device("cuda:0"), torch.bfloat16, 1)
    _, why = choose(tmp_path, VisionConfig(precision="int8"), gpu, SMALL)
    assert why == "int8 needs the engine openvino on a CPU; the engine for GPUs"
