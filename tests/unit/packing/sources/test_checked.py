"""Models that workers cannot load are rejected, and the store remains unchanged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.packing.conftest import Bench
from torchserve_models.packing import errors


def change(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def change_weights(folder: Path, value: float | None) -> None:
    """Set the last weight to `value`, or remove it."""
    path = sorted(folder.glob("*.safetensors"))[-1]
    weights = load_file(path)
    name = sorted(weights)[-1]
    if value is None:
        del weights[name]
    else:
        weights[name] = torch.full_like(weights[name], value)
    save_file(weights, path, metadata={"format": "pt"})


SUMMARIZERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing weights": (
        lambda folder: change_weights(folder, None),
        "cannot be served: weights of .* are missing",
    ),
    "NaN": (
        lambda folder: change_weights(folder, float("nan")),
        "cannot be served: .* contains NaN or infinity",
    ),
    "an empty tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        "cannot be served: the tokenizer does not load, encode and decode",
    ),
    "tokens out of range": (
        lambda folder: change(folder / "generation_config.json", eos_token_id=99),
        "cannot be served: 'eos_token_id' must be token ids from 0 to 15, not 99",
    ),
    "audio": (
        lambda folder: change(
            folder / "config.json",
            model_type="qwen2_audio",
            architectures=["Qwen2AudioForConditionalGeneration"],
        ),
        "config.json of the folder .* 'qwen2_audio' is not supported: its input is audio",
    ),
}
CLASSIFIERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing weights": (
        lambda folder: change_weights(folder, None),
        "cannot be served: the weights .* missing",
    ),
    "infinity": (
        lambda folder: change_weights(folder, float("inf")),
        "cannot be served: .* contains NaN or infinity",
    ),
    "a hole in the labels": (
        lambda folder: change(folder / "config.json", id2label={"0": "a", "1": "b", "3": "d"}),
        "cannot be served: config.json: 'id2label' has 3 labels, but no label for index 2",
    ),
    "labels that are no mapping": (
        lambda folder: change(folder / "config.json", id2label=["a", "b", "c"]),
        "cannot be served: .*'id2label' must map",
    ),
    "too many labels": (
        lambda folder: change(folder / "config.json", id2label={str(index): "x" for index in range(4)}),
        "cannot be served: .* do not match",
    ),
    "quantized": (
        lambda folder: change(folder / "config.json", quantization_config={"quant_method": "awq"}),
        r"cannot be served: .*'quantization_config' \(awq\) is not supported",
    ),
}


@pytest.mark.parametrize("name", SUMMARIZERS)
@pytest.mark.full
def test_unusable_summarizer_is_rejected(name: str, bench: Bench, t5_folder: Path, tmp_path: Path) -> None:
    mutate, words = SUMMARIZERS[name]
    folder = shutil.copytree(t5_folder, tmp_path / "broken")
    mutate(folder)
    with pytest.raises(errors.InvalidSource, match=words):
        bench.pack("report", source=folder)
    assert not (bench.store / "report.mar").exists()


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.full
def test_unusable_image_classifier_is_rejected(
    name: str, bench: Bench, resnet_folder: Path, tmp_path: Path
) -> None:
    mutate, words = CLASSIFIERS[name]
    folder = shutil.copytree(resnet_folder, tmp_path / "broken")
    mutate(folder)
    with pytest.raises(errors.InvalidSource, match=words):
        bench.pack("net", source=folder)
    assert not (bench.store / "net.mar").exists()


@pytest.mark.full
def test_summarizer_settings_are_checked_against_the_model(bench: Bench, tmp_path: Path) -> None:
    from tests.unit.handlers.text.tiny import write_bart

    model = bench.layout.models / "report"
    model.mkdir()
    folder = write_bart(tmp_path / "bart")
    (model / "model-config.yaml").write_text("handler:\n  max_input_tokens: 48\n")
    bench.pack("report", source=folder)
    (model / "model-config.yaml").write_text("handler:\n  max_input_tokens: 49\n")
    with pytest.raises(
        errors.InvalidSource, match="this model has positions for 48 tokens; set it to at most 48"
    ):
        bench.pack("report", source=folder)
