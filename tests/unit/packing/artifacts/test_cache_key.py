"""The cache key depends on all inputs of the prepared files and on nothing else."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.packing.conftest import Bench
from tests.unit.packing.preparing import edit_handlers
from torchserve_models.packing.artifacts import cache_key
from torchserve_models.packing.artifacts.artifact_request import ArtifactRequest
from torchserve_models.packing.artifacts.cache_key import compute_key
from torchserve_models.packing.artifacts.calibration_images import CalibrationImages
from torchserve_models.packing.request import PackRequest
from torchserve_models.packing.sources.resolve import resolve_source
from torchserve_models.packing.tasks import SUMMARIZATION


@pytest.fixture
def request_(bench: Bench, tmp_path: Path) -> ArtifactRequest:
    source = resolve_source(PackRequest("small-net", "starter"), bench.layout, lambda _: None, tmp_path)
    return ArtifactRequest("small-net", source, "auto", "auto", tmp_path / "x.mar", bench.layout)


def test_key_depends_on_model_engine_images_and_libraries(
    request_: ArtifactRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = request_.source.files
    other_weights = replace(request_.source, files=(replace(files[0], sha256="0" * 64), *files[1:]))
    compiled = replace(request_, engine="torch-compiled")
    keys = [
        compute_key(request_, None),
        compute_key(request_, CalibrationImages(300, "1")),
        compute_key(request_, CalibrationImages(300, "2")),
        compute_key(replace(request_, source=other_weights), None),
        compute_key(replace(request_, engine="torch"), None),
        compute_key(compiled, None),
        compute_key(replace(compiled, precision="fp32"), None),
    ]
    monkeypatch.setattr(cache_key, "_describe_cpu", lambda: ["another machine"])
    keys.append(compute_key(compiled, None))
    monkeypatch.setattr(cache_key.provenance, "libraries", lambda: {"openvino": "1"})
    keys.append(compute_key(request_, None))
    assert len(set(keys)) == len(keys)


def test_key_does_not_depend_on_name_and_unused_settings(
    request_: ArtifactRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = compute_key(request_, None)
    assert compute_key(replace(request_, name="another", archive=tmp_path / "y.mar"), None) == key
    assert compute_key(replace(request_, precision="fp32"), None) == key
    monkeypatch.setattr(cache_key, "_describe_cpu", lambda: ["another machine"])
    assert compute_key(request_, None) == key


def test_key_of_a_summarizer_depends_on_precision_settings_and_machine(
    request_: ArtifactRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    summarizer = replace(request_, source=replace(request_.source, task=SUMMARIZATION))
    keys = [
        compute_key(request_, None),
        compute_key(summarizer, None),
        compute_key(replace(summarizer, precision="bf16"), None),
        compute_key(replace(summarizer, settings={"max_input_tokens": 9}), None),
    ]
    monkeypatch.setattr(cache_key.platform, "machine", lambda: "another")
    keys.append(compute_key(summarizer, None))
    assert len(set(keys)) == len(keys)


def test_key_depends_on_the_code_of_handlers_and_packing(
    bench: Bench, request_: ArtifactRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [compute_key(request_, None)]
    for name in (
        "core/config.py",
        "core/device.py",
        "engines/base.py",
        "engines/image/openvino_classifier.py",
        "engines/seq2seq/beam_search.py",
        "text/tokenizer.py",
        "vision/decode.py",
    ):
        edit_handlers(bench, name)
        keys.append(compute_key(request_, None))
    packing = shutil.copytree(cache_key._PACKING / "engines", tmp_path / "packing" / "engines").parent
    monkeypatch.setattr(cache_key, "_PACKING", packing)
    assert compute_key(request_, None) == keys[-1]
    for name in ("classifier.py", "int8.py", "step_attention.cpp", "step_kernels.h"):
        with (packing / "engines" / name).open("a") as file:
            file.write("\n")
        keys.append(compute_key(request_, None))
    assert len(set(keys)) == len(keys)
