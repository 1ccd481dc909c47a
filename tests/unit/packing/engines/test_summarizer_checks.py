"""Checks of summarizers at packing time."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from handlers.core.errors import ConfigurationError
from tests.unit.handlers.text.tiny import write_bart, write_t5
from tests.unit.handlers.text.tiny_architectures import WRITERS, change_json
from torchserve_models.packing.engines.summarizer_checks import check_summarizer

Change = Callable[[Path], object]


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def one(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return weights(lambda tensors: tensors.update({name: change(tensors[name]).contiguous()}))


def config(**settings: Any) -> Change:
    return lambda folder: change_json(folder / "config.json", **settings)


def generation(**settings: Any) -> Change:
    return lambda folder: change_json(folder / "generation_config.json", **settings)


def file(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def without(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink(missing_ok=True) for name in names]


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def empty_vocabulary(folder: Path) -> None:
    change_json(
        folder / "tokenizer.json",
        model={"type": "BPE", "vocab": {}, "merges": []},
        added_tokens=[],
        post_processor=None,
    )
    change_json(
        folder / "tokenizer_config.json", bos_token=None, eos_token=None, pad_token=None, unk_token=None
    )


def with_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor[0] = float("nan")
    return tensor


FC1 = "model.encoder.layers.0.fc1.weight"
SHARED = "model.shared.weight"
WRONG: dict[str, tuple[Change, str]] = {
    "a weight is missing": (
        weights(lambda tensors: tensors.pop(FC1)),
        rf"weights of .* missing \(1 in total\).* '{FC1}'; save the model",
    ),
    "the embedding is missing": (
        weights(lambda tensors: tensors.pop(SHARED)),
        "missing .* save the model again",
    ),
    "a weight of another shape": (one(FC1, lambda tensor: tensor[:-1]), rf"'{FC1}'.*shape.*save the model"),
    "fewer layers in the config": (
        config(encoder_layers=3),
        r"config.json has fewer layers than the weights",
    ),
    "more layers in the config": (config(encoder_layers=5), r"missing .*layers\.4"),
    "another vocabulary": (config(vocab_size=100), "shape"),
    "no vocabulary": (config(vocab_size=None), "shape"),
    "another architecture": (config(model_type="t5"), "(missing|shape)"),
    "no architecture": (config(model_type=None), "model type None is not supported"),
    "audio": (config(model_type="qwen2_audio"), "its input is audio"),
    "heads that do not divide": (
        config(encoder_attention_heads=5),
        r"cannot build the network in config.json",
    ),
    "text where a number belongs": (config(d_model="wide"), r"cannot build the network in config.json"),
    "quantized": (config(quantization_config={"quant_method": "gptq"}), r"'quantization_config' \(gptq\)"),
    "cut off": (cut, r"model\.safetensors cannot be read"),
    "no safetensors": (file("model.safetensors", "weights"), r"model\.safetensors cannot be read"),
    "NaN": (one(FC1, with_nan), rf"model\.safetensors: '{FC1}' contains NaN or infinity"),
    "infinity": (one(FC1, lambda tensor: tensor / 0.0), "NaN or infinity"),
    "integers": (one(FC1, lambda tensor: tensor.to(torch.int8)), rf"'{FC1}' has the type I8"),
    "float8": (one(FC1, lambda tensor: tensor.to(torch.float8_e4m3fn)), "has the type F8_E4M3"),
    "an empty tokenizer": (file("tokenizer.json", "{}"), "the tokenizer does not load, encode and decode"),
    "a tokenizer that is no JSON": (file("tokenizer.json", "{"), "the tokenizer does not load"),
    "no tokenizer": (
        without("tokenizer.json", "tokenizer_config.json"),
        "the vocabulary of the tokenizer is empty",
    ),
    "an empty vocabulary": (empty_vocabulary, "the vocabulary of the tokenizer is empty"),
    "no JSON for generation": (file("generation_config.json", "{"), "the generation config cannot be read"),
    "an end out of range": (generation(eos_token_id=5000), "'eos_token_id' must be token ids from 0 to"),
    "a start below 0": (generation(decoder_start_token_id=-1), "'decoder_start_token_id' must be token ids"),
    "a forced end out of range": (generation(forced_eos_token_id=[2, 9999]), "'forced_eos_token_id'.*9999"),
    "suppressed out of range": (generation(suppress_tokens=[1, 9999]), "'suppress_tokens'.*9999"),
    "bad words out of range": (generation(bad_words_ids=[[3], [9999]]), "'bad_words_ids'.*9999"),
    "a padding that is text": (generation(pad_token_id="<pad>"), "'pad_token_id'|generation config cannot"),
    "a length that is text": (generation(max_length="long"), "'max_length'|generation config cannot"),
    "beams that are a fraction": (generation(num_beams=2.5), "'num_beams'|generation config cannot"),
    "a penalty that is text": (
        generation(length_penalty="high"),
        "'length_penalty'|generation config cannot",
    ),
    "early stopping at times": (
        generation(early_stopping="now"),
        "'early_stopping'|generation config cannot",
    ),
    "no start": (
        generation(decoder_start_token_id=None, bos_token_id=None),
        "'decoder_start_token_id' is missing; set it",
    ),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bart(tmp_path_factory.mktemp("models") / "bart")


@pytest.fixture
def bart(original: Path, tmp_path: Path) -> Path:
    """A BART that the test may change."""
    return Path(shutil.copytree(original, tmp_path / "bart"))


@pytest.mark.parametrize("name", WRONG)
def test_unloadable_model_is_rejected(name: str, bart: Path) -> None:
    change, words = WRONG[name]
    change(bart)
    with pytest.raises(ConfigurationError, match=words) as error:
        check_summarizer(bart)
    assert str(bart) not in str(error.value).partition("cannot be read")[0]


def test_tokenizer_with_ids_beyond_the_embedding_is_rejected(bart: Path) -> None:
    tokenizer = json.loads((bart / "tokenizer.json").read_text())
    added = dict(tokenizer["added_tokens"][0]) | {"id": 5000, "content": "<extra>"}
    change_json(bart / "tokenizer.json", added_tokens=[*tokenizer["added_tokens"], added])
    with pytest.raises(ConfigurationError, match=r"the tokenizer has the token id \d+ \('<extra>'\)"):
        check_summarizer(bart)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_input_tokens": 49}, "'handler.max_input_tokens' is 49, and this model has positions for 48"),
        ({"max_input_tokens": 1}, "'handler.max_input_tokens' must be above"),
        ({"max_input_tokens": 4.5}, "'handler.max_input_tokens' must be an integer"),
        ({"max_input": 4}, r"unknown key 'handler\.max_input'"),
    ],
)
def test_incompatible_handler_settings_are_rejected(
    settings: dict[str, Any], words: str, original: Path
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        check_summarizer(original, settings)


@pytest.mark.parametrize("name", WRITERS)
def test_served_architecture_passes(name: str, tmp_path: Path) -> None:
    check_summarizer(WRITERS[name](tmp_path))


def test_length_above_the_tokenizers_passes_with_relative_positions(tmp_path: Path) -> None:
    check_summarizer(write_t5(tmp_path), {"max_input_tokens": 4096})


def test_additional_and_half_precision_weights_pass(bart: Path) -> None:
    weights(lambda tensors: tensors.update({"lm_head.extra": torch.zeros(3)}))(bart)
    one(FC1, lambda tensor: tensor.half())(bart)
    check_summarizer(bart)
