"""Calibration, reuse, recalibration and removal of int8 when a model is packed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.packing.conftest import Bench
from tests.unit.packing.preparing import (
    ALWAYS,
    CALIBRATION,
    GRAPH,
    INT8,
    SUCCESS,
    edit_handlers,
    fake,
    prepared_members,
    set_engine,
)
from torchserve_models.packing import errors, read_provenance
from torchserve_models.packing.artifacts import preparation


@pytest.mark.full
def test_summarizer_can_replace_a_calibrated_classifier(
    bench: Bench, t5_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        preparation, "_read_calibration", lambda archive: preparation.CalibrationImages(300, "1")
    )
    assert not prepared_members(bench.pack("report", source=t5_folder).path) & INT8
    assert not any("WARNING" in line for line in bench.messages)


def test_calibration_of_a_summarizer_is_rejected(bench: Bench, t5_folder: Path, photos: Path) -> None:
    with pytest.raises(
        errors.InvalidOptions, match=r"--calibrate is only for image classifiers.* summarization"
    ):
        bench.pack("report", source=t5_folder, calibrate=photos)


@pytest.mark.full
def test_int8_is_kept_until_it_is_removed(bench: Bench, photos: Path, no_process: Callable[[], None]) -> None:
    plain = bench.pack(weights="starter")
    first = bench.pack(weights="starter", calibrate=photos)
    assert prepared_members(first.path) == ALWAYS | GRAPH | INT8
    assert first.version != plain.version
    facts = read_provenance(first.path).prepared
    assert facts["calibration"]["images"] == 8
    no_process()
    bench.messages.clear()
    again = bench.pack(weights="starter")
    assert again.unchanged
    assert any("keeping the int8 network calibrated with 8 images" in line for line in bench.messages)
    assert bench.pack(weights="starter", calibrate=photos).unchanged
    dropped = bench.pack(weights="starter", calibrate="none")
    assert dropped.sha256 == plain.sha256
    assert bench.pack(weights="starter").unchanged


@pytest.mark.full
def test_int8_is_recalibrated_after_handler_change(bench: Bench, empty_cache: Path, photos: Path) -> None:
    fake(bench, *CALIBRATION)
    first = bench.pack(weights="starter", calibrate=photos)
    edit_handlers(bench)
    bench.messages.clear()
    again = bench.pack(weights="starter")
    assert not again.unchanged
    assert prepared_members(again.path) == prepared_members(first.path) == ALWAYS | GRAPH | INT8
    assert any(f"calibrating int8 with 8 images of {photos}" in line for line in bench.messages)


@pytest.mark.full
def test_missing_calibration_folder_drops_int8_with_warning(
    bench: Bench, empty_cache: Path, photos: Path, tmp_path: Path
) -> None:
    images = shutil.copytree(photos, tmp_path / "images")
    fake(bench, *CALIBRATION)
    assert prepared_members(bench.pack(weights="starter", calibrate=images).path) == ALWAYS | GRAPH | INT8
    shutil.rmtree(images)
    edit_handlers(bench)
    bench.messages.clear()
    assert prepared_members(bench.pack(weights="starter").path) == ALWAYS | GRAPH
    assert any(
        "WARNING: packing without int8" in line
        and f"{images} does not exist" in line
        and "--calibrate FOLDER" in line
        for line in bench.messages
    )


@pytest.mark.full
def test_engine_without_int8_drops_int8_with_warning(bench: Bench, photos: Path) -> None:
    bench.pack(weights="starter", calibrate=photos)
    set_engine(bench, "torch")
    assert prepared_members(bench.pack(weights="starter").path) == ALWAYS
    assert any(
        "WARNING: packing without int8" in line and "handler.engine is torch now" in line
        for line in bench.messages
    )


@pytest.mark.full
def test_int8_with_low_agreement_is_reported(bench: Bench, empty_cache: Path) -> None:
    facts = {"openvino": {"version": "1", "int8": {"images": 300, "agreement": 0.91}}}
    fake(bench, *SUCCESS[:-1], f"(target / 'prepared.json').write_text({json.dumps(facts)!r})")
    bench.pack(weights="starter")
    assert any("the same label for only 91.0%" in line for line in bench.messages)


def test_impossible_calibration_is_rejected(
    bench: Bench, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.InvalidOptions, match="does not exist"):
        bench.pack(weights="starter", calibrate=tmp_path / "nowhere")
    set_engine(bench, "torch")
    with pytest.raises(errors.InvalidOptions, match="int8 requires OpenVINO, but small-net has"):
        bench.pack(weights="starter", calibrate=photos)
    set_engine(bench, "openvino")
    monkeypatch.setattr(preparation.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(errors.InvalidOptions, match="scripts/setup --calibrate"):
        bench.pack("my-net", source=bench.layout.starter("small-net"), calibrate=photos)
    assert not bench.store.exists()
