"""Preparation of image classifiers: files, facts and reproducibility."""

import json
import shutil
import subprocess
import sys

import pytest

from handlers.core.errors import ConfigurationError
from handlers.engines.base import EngineUnavailable
from tests.conftest import ROOT
from tests.unit.handlers.architectures import write_timm
from tests.unit.handlers.classifiers import write_images
from tests.unit.preloaded import RUN
from torchserve_models.packing.engines import classifier
from torchserve_models.packing.engines.classifier import prepare_classifier
from torchserve_models.packing.sources.run_conversion import REJECTED_EXIT_CODE

COMMAND = [sys.executable, "-P", "-m", "torchserve_models.packing.engines.classifier"]
ENVIRONMENT = {"PATH": "", "PYTHONPATH": str(ROOT)}


@pytest.mark.full
def test_command_prints_facts_and_is_reproducible(small, tmp_path):
    write_images(tmp_path / "images", seed=5, count=3)
    one, two = tmp_path / "one", tmp_path / "two"
    outputs = []
    for run, folder in ((RUN, one), (subprocess.run, two)):  # a new process, and a fork of another
        done = run(
            [*COMMAND, small, folder, "--images", tmp_path / "images"],
            env=ENVIRONMENT | {"HOME": str(tmp_path)},
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    facts = json.loads(outputs[0])
    assert facts == json.loads((one / "prepared.json").read_text())
    assert facts["engine"] == "auto"
    assert facts["openvino"]["int8"]["images"] == 3
    assert 0 <= facts["openvino"]["int8"]["agreement"] <= 1
    assert 1 <= facts["openvino"]["int8"]["check_images"] <= 3
    contents = [{path.name: path.read_bytes() for path in target.iterdir()} for target in (one, two)]
    assert sorted(contents[0]) == [
        "int8-check.safetensors",
        "openvino-int8.bin",
        "openvino-int8.xml",
        "openvino.bin",
        "openvino.xml",
        "prepared.json",
        "preprocess.json",
    ]
    for name in contents[0]:
        assert contents[0][name] == contents[1][name], name
    assert not (tmp_path / "intel").exists()  # OpenVINO's telemetry keeps an identity there


@pytest.mark.full
def test_failure_is_reported_in_one_line(small, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text((small / "config.json").read_text())
    command = [*COMMAND, tmp_path / "model", tmp_path / "target"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True)
    assert done.returncode == REJECTED_EXIT_CODE
    assert b"preprocessor_config.json" in done.stderr.splitlines()[-1]


def test_torch_engine_needs_no_openvino_files(small, tmp_path):
    facts = prepare_classifier(small, tmp_path, engine="torch")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared.json", "preprocess.json"]
    assert "openvino" not in facts


def test_network_that_cannot_be_converted_is_reported(small, tmp_path, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("cannot trace /home/me/net.py:3 here\nand more")

    monkeypatch.setattr(classifier, "convert", fails)
    facts = prepare_classifier(small, tmp_path)
    assert facts["openvino"] == {"none": "RuntimeError: cannot trace ... here"}
    with pytest.raises(RuntimeError, match="cannot trace"):  # int8 was requested
        prepare_classifier(small, tmp_path, images=write_images(tmp_path / "images", 1, 1))


def edit_config(small, folder, **changes):
    shutil.copytree(small, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_mismatched_weights_are_rejected(small, tmp_path):
    with pytest.raises(ConfigurationError, match="the weights do not fit ResNetForImageClassification"):
        prepare_classifier(
            edit_config(small, tmp_path / "model", depths=[1, 2]), tmp_path / "target", "torch"
        )


@pytest.mark.full
def test_wrong_number_of_labels_is_rejected(tmp_path):
    config = {"architecture": "resnet10t", "num_classes": 3, "label_names": ["cat", "dog"]}
    write_timm(tmp_path / "model", config | {"pretrained_cfg": {"input_size": [3, 64, 64]}})
    with pytest.raises(ConfigurationError, match=r"network has 3 outputs, but config\.json has 2 labels"):
        prepare_classifier(tmp_path / "model", tmp_path / "target", "torch")


@pytest.mark.parametrize("step", ["convert", "import_openvino"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
@pytest.mark.full
def test_full_disk_or_memory_fails_the_preparation(small, tmp_path, monkeypatch, step, error):

    def fails(*arguments):
        raise error

    monkeypatch.setattr(classifier, step, fails)
    with pytest.raises(type(error)):
        prepare_classifier(small, tmp_path)


def test_calibration_without_nncf_is_rejected(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EngineUnavailable, match="int8 requires NNCF, which is not installed"):
        prepare_classifier(small, tmp_path, images=write_images(tmp_path / "images", 1, 1))
