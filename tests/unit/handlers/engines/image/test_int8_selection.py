"""The choice between int8 and another precision: agreement at packing and here, then speed here."""

import json
from dataclasses import replace

import pytest
import torch

from handlers.engines.base import FACTS_FILE, PREPARED_DIR
from handlers.engines.image import engine_selection, int8_selection
from handlers.engines.image.engine_selection import select_engine
from handlers.engines.image.int8_agreement import CHECK_FILE, INT8_GRAPH, CheckImages, write_check_images
from handlers.engines.image.int8_selection import MIN_SPEEDUP
from tests.unit.handlers.engines.image.conftest import FP32, SPEC

LOADED: list["ClassifierStub"] = []


class ClassifierStub:
    """OpenVINO's engine: fp32 labels image i as i, int8 does the same except for `wrong_labels`."""

    name = "openvino"
    wrong_labels = 0
    failing_runs: tuple[int, ...] = ()
    """Numbers of runs, of all engines together, that raise an error."""
    runs = 0

    def __init__(self, spec, int8=False):
        self.int8, self.int8_facts, self.is_loaded = int8, None, False

    def load(self, folder, device):
        self.is_loaded = True
        LOADED.append(self)

    def run(self, batch):
        ClassifierStub.runs += 1
        if ClassifierStub.runs in self.failing_runs:
            raise RuntimeError("failed to run")
        labels = batch[:, 0, 0, 0].long()
        return torch.nn.functional.one_hot(labels + (self.int8 & (labels < self.wrong_labels)), 10)

    def unload(self):
        assert LOADED.pop() is self, "engines must be unloaded in reverse order"
        self.is_loaded = False

    def describe(self):
        return {"precision": "int8" if self.int8 else "bf16"}


@pytest.fixture
def select(tmp_path, monkeypatch):
    """Select an engine for a packed model, with stubs for the engine, the measured speedup and the CPU."""
    LOADED.clear()
    monkeypatch.setattr(ClassifierStub, "runs", 0)
    monkeypatch.setattr(engine_selection, "OpenVinoClassifier", ClassifierStub)
    monkeypatch.setattr(int8_selection, "OpenVinoClassifier", ClassifierStub)

    def run(
        precision="auto",
        agreement=0.99,
        stored=True,
        vnni=False,
        wrong_labels=0,
        speedup=2.0,
        count=8,
        edit=None,
    ):
        prepared = tmp_path / PREPARED_DIR
        prepared.mkdir()
        (prepared / INT8_GRAPH).touch()
        facts = {"openvino": {"int8": {"agreement": agreement, "images": 300}}}
        (prepared / FACTS_FILE).write_text(json.dumps(facts))
        if stored:
            labels = torch.arange(count)
            pixels = labels.to(torch.uint8)[:, None, None, None].expand(count, 2, 2, 3)
            write_check_images(prepared, CheckImages(pixels, labels))
        if edit is not None:
            edit(prepared)
        monkeypatch.setattr(ClassifierStub, "wrong_labels", wrong_labels)
        monkeypatch.setattr(int8_selection, "has_any", lambda flags: vnni)
        monkeypatch.setattr(
            int8_selection, "measure_speedup", speedup if callable(speedup) else lambda *_: [speedup] * 2
        )
        engine, reason = select_engine(tmp_path, replace(FP32, threads=1), SPEC, precision=precision)
        assert engine.is_loaded
        return engine, reason

    return run


def test_auto_selects_int8_that_agrees_and_is_faster_on_any_cpu(select):
    engine, reason = select(vnni=False)
    assert engine.int8
    assert [engine] == LOADED
    assert reason == "the fastest on CPUs"
    assert engine.int8_facts == {
        "agreement_at_packing": 0.99,
        "images_at_packing": 300,
        "agreement_here": 1.0,
        "images_here": 8,
        "speedup": {"batch_1": 2.0, "batch_4": 2.0},
        "compared_with": "bf16",
    }


def test_auto_keeps_the_other_precision_if_int8_is_not_faster(select):
    engine, _ = select(speedup=MIN_SPEEDUP - 0.01)
    assert not engine.int8
    assert [engine] == LOADED, "int8 must not stay in memory"
    assert engine.int8_facts["speedup"]["batch_1"] == 1.04
    assert engine.int8_facts["agreement_here"] == 1.0


@pytest.mark.parametrize(("precision", "wrong"), [("auto", 1), ("int8", 2)])
def test_int8_with_wrong_labels_on_this_cpu_is_replaced_with_a_warning(select, precision, wrong, caplog):
    engine, reason = select(precision, wrong_labels=wrong, vnni=True)
    assert not engine.int8
    assert [engine] == LOADED
    message = f"for {wrong} of the 8 stored images on this CPU; at most {wrong - 1} may differ"
    assert f"int8 predicts another label than fp32 {message}" in reason
    assert message in caplog.text


@pytest.mark.parametrize(("count", "is_int8"), [(3, False), (4, True), (8, True)])
def test_configured_int8_may_differ_in_one_of_several_images(select, count, is_int8):
    engine, _ = select("int8", wrong_labels=1, count=count)
    assert engine.int8 == is_int8
    if is_int8:
        assert engine.int8_facts["agreement_here"] == 1 - 1 / count


@pytest.mark.parametrize(("precision", "is_int8"), [("auto", False), ("int8", True)])
def test_int8_without_suitable_images_requires_configured_int8(select, precision, is_int8):
    engine, reason = select(precision, count=0, vnni=True)
    assert engine.int8 == is_int8
    assert reason.startswith("int8 cannot be verified: no calibration image was suitable")


def shorten(prepared):
    path = prepared / CHECK_FILE
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("precision", ["auto", "int8"])
@pytest.mark.parametrize(
    "edit", [shorten, lambda prepared: (prepared / FACTS_FILE).write_text('{"openvino": {}}')]
)
def test_damaged_files_are_replaced_with_a_warning(select, precision, edit, caplog):
    engine, reason = select(precision, edit=edit)
    assert not engine.int8
    assert [engine] == LOADED
    assert reason.startswith("cannot verify int8: ")
    assert "cannot verify int8: " in caplog.text


@pytest.mark.parametrize("precision", ["auto", "int8"])
@pytest.mark.parametrize("failing_run", [1, 9])
def test_error_in_verification_is_replaced_with_a_warning(select, monkeypatch, precision, failing_run):
    monkeypatch.setattr(ClassifierStub, "failing_runs", (failing_run,))
    engine, reason = select(precision)
    assert not engine.int8
    assert [engine] == LOADED
    assert reason.startswith("cannot verify int8: RuntimeError: failed to run; ")


def test_error_in_the_comparison_is_replaced_with_a_warning(select):
    def fail(*_):
        raise RuntimeError("failed to run")

    engine, reason = select(speedup=fail)
    assert not engine.int8
    assert [engine] == LOADED
    assert reason.startswith("cannot compare int8 with bf16: RuntimeError: failed to run; ")


def test_comparison_of_slow_networks_has_one_batch(select):
    engine, _ = select(speedup=lambda *_: [3.0])
    assert engine.int8
    assert engine.int8_facts["speedup"] == {"batch_1": 3.0}


@pytest.mark.parametrize(("precision", "is_int8"), [("auto", False), ("int8", True)])
def test_low_agreement_at_packing_requires_configured_int8(select, precision, is_int8):
    engine, reason = select(precision, agreement=0.91)
    assert engine.int8 == is_int8
    assert ("for 91.0% of the images" in reason) != is_int8


@pytest.mark.parametrize("precision", ["auto", "int8"])
@pytest.mark.parametrize("vnni", [True, False])
def test_archive_without_stored_images_requires_exact_instructions(select, precision, vnni):
    engine, reason = select(precision, stored=False, vnni=vnni)
    assert engine.int8 == vnni
    assert ("requires VNNI or AMX; pack it again" in reason) == (precision == "int8" and not vnni)
    if vnni:
        assert "agreement_here" not in engine.int8_facts


def test_configured_int8_is_not_compared(select):
    engine, reason = select("int8", speedup=0.5)
    assert engine.int8
    assert reason == "the fastest on CPUs"
    assert "speedup" not in engine.int8_facts


def test_other_precisions_ignore_int8(select):
    engine, _ = select("fp32")
    assert not engine.int8
    assert engine.int8_facts is None
