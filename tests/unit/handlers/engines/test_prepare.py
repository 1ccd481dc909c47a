"""What packing prepares: the files, the facts, the same bytes each time."""

import json
import shutil
import subprocess
import sys

import pytest

from handlers.core.errors import ConfigurationError
from handlers.engines import prepare
from handlers.engines.base import REFUSED, EngineUnavailable
from handlers.engines.prepare import prepare_classifier
from tests.conftest import ROOT
from tests.unit.handlers.architectures import write_timm
from tests.unit.handlers.engines.conftest import write_images


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "handlers.engines.prepare", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, env={"PATH": "", **environment},
    )  # fmt: skip


@pytest.mark.full
def test_the_command_prints_the_facts_and_gives_the_same_bytes(small, tmp_path):
    write_images(tmp_path / "images", seed=5, count=3)
    made = []
    for target in (tmp_path / "one", tmp_path / "two"):
        done = run(small, target, "--images", tmp_path / "images", HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert facts == json.loads((target / "prepared.json").read_text())
        assert facts["engine"] == "auto"
        assert facts["openvino"]["int8"]["images"] == 3
        assert 0 <= facts["openvino"]["int8"]["agreement"] <= 1
        made.append({path.name: path.read_bytes() for path in target.iterdir()})
    assert sorted(made[0]) == [
        "openvino-int8.bin",
        "openvino-int8.xml",
        "openvino.bin",
        "openvino.xml",
        "prepared.json",
        "preprocess.json",
    ]
    for name in made[0]:
        assert made[0][name] == made[1][name], name
    assert not (tmp_path / "intel").exists()  # OpenVINO's telemetry keeps an identity there


@pytest.mark.full
def test_a_failure_is_one_line(small, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text((small / "config.json").read_text())
    done = run(tmp_path / "model", tmp_path / "target")
    assert done.returncode == REFUSED
    assert "preprocessor_config.json" in done.stderr.splitlines()[-1]


def test_only_what_the_engine_needs(small, tmp_path):
    facts = prepare_classifier(small, tmp_path, engine="torch")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared.json", "preprocess.json"]
    assert "openvino" not in facts


def test_the_calibrated_starter_agrees(calibrated):
    int8 = json.loads((calibrated / "prepared" / "prepared.json").read_text())["openvino"]["int8"]
    assert int8["agreement"] >= 0.98
    assert (int8["images"], int8["setting"]) == (200, "mixed")


def test_a_network_that_cannot_be_converted_is_said(small, tmp_path, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("cannot trace /home/me/net.py:3 here\nand more")

    monkeypatch.setattr(prepare, "convert", fails)
    facts = prepare_classifier(small, tmp_path)
    assert facts["openvino"] == {"none": "RuntimeError: cannot trace ... here"}
    with pytest.raises(RuntimeError, match="cannot trace"):  # int8 was asked for
        prepare_classifier(small, tmp_path, images=write_images(tmp_path / "images", 1, 1))


def edit_config(small, folder, **changes):
    shutil.copytree(small, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_weights_that_do_not_fit_are_known_here(small, tmp_path):
    """Not only when a worker dies of them, whatever engine it has."""
    with pytest.raises(ConfigurationError, match="the weights do not fit ResNetForImageClassification"):
        prepare_classifier(
            edit_config(small, tmp_path / "model", depths=[1, 2]), tmp_path / "target", "torch"
        )


def test_labels_that_are_not_as_many_as_the_outputs(tmp_path):
    config = {"architecture": "resnet10t", "num_classes": 3, "label_names": ["cat", "dog"]}
    write_timm(tmp_path / "model", config | {"pretrained_cfg": {"input_size": [3, 64, 64]}})
    with pytest.raises(ConfigurationError, match=r"network has 3 outputs, and config\.json gives 2 labels"):
        prepare_classifier(tmp_path / "model", tmp_path / "target", "torch")


@pytest.mark.parametrize("step", ["convert", "import_openvino"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
@pytest.mark.full
def test_a_machine_that_is_full_is_no_reason_to_go_without(small, tmp_path, monkeypatch, step, error):
    """Of `import_openvino`, any other error would do as well: only converting may fail."""

    def fails(*arguments):
        raise error

    monkeypatch.setattr(prepare, step, fails)
    with pytest.raises(type(error)):
        prepare_classifier(small, tmp_path)


def test_calibrating_without_nncf(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EngineUnavailable, match="int8 needs NNCF, which is not installed"):
        prepare_classifier(small, tmp_path, images=write_images(tmp_path / "images", 1, 1))
