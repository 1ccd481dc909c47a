"""Sources of weights: paths and options that are rejected, pickled weights, and replaced labels."""

import json
import zipfile
from pathlib import Path

import pytest

from handlers.vision.labels import read_labels
from tests.unit.handlers.architectures import write_timm
from tests.unit.packing.conftest import Bench
from tests.unit.packing.sources.timm_config import timm_config
from torchserve_models.packing import errors


@pytest.mark.full
def test_requested_pickled_weights_are_converted(bench: Bench, folder: Path, tmp_path: Path) -> None:
    """The packed weights equal the original safetensors byte for byte, and the pickle is not packed."""
    import torch
    from safetensors.torch import load_file

    expected = bench.pack("my-net", source=folder).sha256
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(errors.NoSafetensors, match=r"pytorch_model\.bin.*add --pickled"):
        bench.pack("my-net", source=folder)
    assert bench.pack("my-net", source=folder, pickled=True).sha256 == expected
    assert any("only pickled weights" in message for message in bench.messages)
    del tensors["classifier.1.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(
        errors.InvalidSource, match=r"ResNetForImageClassification are missing.*classifier\.1\.weight"
    ):
        bench.pack("my-net", source=folder, pickled=True)


def test_code_in_a_pickle_is_not_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from torchserve_models.packing.sources.convert import _transformers

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "touched",))

    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(SystemExit) as ended:
        _transformers("AutoModelForImageClassification", folder, tmp_path / "target")
    assert ended.value.code == 3
    assert "requires running code" in capsys.readouterr().err
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("./nowhere", "does not exist"),
        ("/nowhere/at/all", "does not exist"),
        ("owner/name/", "does not exist"),
        ("a/b/c", "neither an existing folder"),
        ("owner/na me", "neither an existing folder"),
        ("https://example.org/owner/name", "neither an existing folder"),
        ("", "neither an existing folder"),
    ],
)
def test_invalid_source_is_rejected(bench: Bench, source: str, words: str) -> None:
    with pytest.raises(errors.InvalidSource, match=words):
        bench.pack("my-net", source=source)


def test_file_is_rejected_as_source(bench: Bench, folder: Path) -> None:
    with pytest.raises(errors.InvalidSource, match="is a file"):
        bench.pack("my-net", source=folder / "config.json")


def test_contradictory_options_are_rejected(bench: Bench, folder: Path) -> None:
    with pytest.raises(errors.InvalidOptions, match="cannot be combined"):
        bench.pack("my-net", source=folder, weights="starter")
    with pytest.raises(errors.InvalidOptions, match="not to folders"):
        bench.pack("my-net", source=folder, update=True)
    with pytest.raises(errors.InvalidOptions, match="allowed: auto, pretrained, starter"):
        bench.pack(weights="best")
    with pytest.raises(errors.InvalidOptions, match="--update"):
        bench.pack(weights="starter", update=True)


def labels_file(folder: Path, *labels: str) -> Path:
    path = folder / "labels.txt"
    path.write_text("\n".join(labels), encoding="utf-8")
    return path


def use_torch(bench: Bench) -> None:
    """Set an engine that needs no conversion."""
    config = bench.layout.models / "my-net" / "model-config.yaml"
    config.parent.mkdir()
    config.write_text("handler:\n  engine: torch\n")


@pytest.mark.full
def test_labels_replace_those_of_a_folder(bench: Bench, folder: Path, tmp_path: Path) -> None:
    use_torch(bench)
    bench.pack("my-net", source=folder)
    assert any("LABEL_0 to LABEL_2" in message and "--labels FILE" in message for message in bench.messages)
    bench.messages.clear()
    packed = bench.pack("my-net", source=folder, labels=labels_file(tmp_path, "Größe", "cat", "dog"))
    assert not any("LABEL_0" in message for message in bench.messages)
    with zipfile.ZipFile(packed.path) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert read_labels(tmp_path / "unpacked" / "model") == (["Größe", "cat", "dog"], "softmax")
    assert '"id2label"' in (folder / "config.json").read_text()
    assert "Größe" not in (folder / "config.json").read_text()


def test_wrong_number_of_labels_is_rejected(bench: Bench, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidSource, match=r"has 2 labels, but .* has 3 classes"):
        bench.pack("my-net", source=folder, labels=labels_file(tmp_path, "a", "b"))


@pytest.mark.full
def test_labels_replace_those_of_timm_format(bench: Bench, tmp_path: Path) -> None:
    use_torch(bench)
    source = tmp_path / "timm"
    write_timm(source, json.loads(timm_config(model_args={"num_classes": 3, "in_chans": 3})))
    packed = bench.pack("my-net", source=source, labels=labels_file(tmp_path, "a", "b", "c"))
    with zipfile.ZipFile(packed.path) as archive:
        assert json.loads(archive.read("model/config.json"))["label_names"] == ["a", "b", "c"]


def test_labels_for_a_summarizer_are_rejected(bench: Bench, t5_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidOptions, match="--labels is only for image classifiers"):
        bench.pack("report", source=t5_folder, labels=labels_file(tmp_path, "a"))
