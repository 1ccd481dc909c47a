"""int8 made at packing: kept, made again, and never lost without a word."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.packing.conftest import Bench
from tests.unit.packing.preparing import (
    ALWAYS,
    GRAPH,
    INT8,
    SUCCESS,
    edit_engines,
    fake,
    prepared_members,
    set_engine,
)
from torchserve_models.packing import errors, read_provenance
from torchserve_models.packing.artifacts import preparation


@pytest.mark.full
def test_what_was_calibrated_may_become_a_summarizer(
    bench: Bench, t5_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "_calibration_of", lambda archive: preparation.Images(300, "1"))
    assert not prepared_members(bench.pack("report", source=t5_folder).path) & INT8
    assert not any("WARNING" in line for line in bench.said)


def test_text_is_not_calibrated(bench: Bench, t5_folder: Path, photos: Path) -> None:
    with pytest.raises(errors.BadRequest, match=r"--calibrate is for image.*model for summarization"):
        bench.pack("report", source=t5_folder, calibrate=photos)


@pytest.mark.full
def test_int8_is_made_and_kept(bench: Bench, photos: Path, no_process: Callable[[], None]) -> None:
    plain = bench.pack(weights="starter")
    first = bench.pack(weights="starter", calibrate=photos)
    assert prepared_members(first.path) == ALWAYS | GRAPH | INT8
    assert first.version != plain.version
    facts = read_provenance(first.path).prepared
    assert facts["calibration"]["images"] == 8
    no_process()
    bench.said.clear()
    again = bench.pack(weights="starter")
    assert again.unchanged
    assert any("int8 as calibrated before, with 8 images" in line for line in bench.said)
    assert bench.pack(weights="starter", calibrate=photos).unchanged
    dropped = bench.pack(weights="starter", calibrate="none")
    assert dropped.sha256 == plain.sha256
    assert bench.pack(weights="starter").unchanged


@pytest.mark.full
def test_int8_is_made_again_from_the_same_folder(bench: Bench, own_cache: Path, photos: Path) -> None:
    first = bench.pack(weights="starter", calibrate=photos)
    edit_engines(bench)
    bench.said.clear()
    again = bench.pack(weights="starter")
    assert not again.unchanged
    assert prepared_members(again.path) == prepared_members(first.path)
    assert any(f"int8 from 8 images of {photos}" in line for line in bench.said)


@pytest.mark.full
def test_int8_is_not_lost_without_a_word(bench: Bench, own_cache: Path, photos: Path, tmp_path: Path) -> None:
    lent = shutil.copytree(photos, tmp_path / "lent")
    bench.pack(weights="starter", calibrate=lent)
    shutil.rmtree(lent)
    edit_engines(bench)
    bench.said.clear()
    assert prepared_members(bench.pack(weights="starter").path) == ALWAYS | GRAPH
    assert any(
        "WARNING: packing without int8" in line
        and f"no folder {lent}" in line
        and "--calibrate FOLDER" in line
        for line in bench.said
    )


@pytest.mark.full
def test_another_engine_drops_int8_with_a_word(bench: Bench, photos: Path) -> None:
    bench.pack(weights="starter", calibrate=photos)
    set_engine(bench, "torch")
    assert prepared_members(bench.pack(weights="starter").path) == ALWAYS
    assert any(
        "WARNING: packing without int8" in line and "engine is torch now" in line for line in bench.said
    )


def test_int8_that_agrees_too_seldom_is_said(bench: Bench, own_cache: Path) -> None:
    facts = {"openvino": {"version": "1", "int8": {"images": 300, "agreement": 0.91}}}
    fake(bench, *SUCCESS[:-1], f"(target / 'prepared.json').write_text({json.dumps(facts)!r})")
    bench.pack(weights="starter")
    assert any("WARNING: int8 labels only 91.0%" in line for line in bench.said)


def test_int8_that_cannot_be_made(
    bench: Bench, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.BadRequest, match="no folder"):
        bench.pack(weights="starter", calibrate=tmp_path / "nowhere")
    set_engine(bench, "torch")
    with pytest.raises(
        errors.BadRequest, match="int8 needs OpenVINO, and small-net asks for the engine torch"
    ):
        bench.pack(weights="starter", calibrate=photos)
    set_engine(bench, "openvino")
    monkeypatch.setattr(preparation.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(errors.BadRequest, match="scripts/setup --calibrate"):
        bench.pack("my-net", source=bench.layout.starter("small-net"), calibrate=photos)
    assert not bench.store.exists()
