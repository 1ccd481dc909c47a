"""What a worker would fail at is found at packing, with the file and the key in the message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from handlers.core.errors import ConfigurationError
from handlers.engines.seq2seq.check import check_summarizer
from tests.unit.handlers.text.tiny import write_bart, write_t5
from tests.unit.handlers.text.tiny_architectures import WRITERS, change_json

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
    "a weight is missing": (weights(lambda tensors: tensors.pop(FC1)), rf"lack 1 .* '{FC1}'; save the model"),
    "the embedding is missing": (
        weights(lambda tensors: tensors.pop(SHARED)),
        "lack .* save the model again",
    ),
    "a weight of another shape": (one(FC1, lambda tensor: tensor[:-1]), rf"'{FC1}'.*shape.*save the model"),
    "fewer layers in the config": (config(encoder_layers=3), r"more than config.json describes, such as"),
    "more layers in the config": (config(encoder_layers=5), r"lack .*layers\.4"),
    "another vocabulary": (config(vocab_size=100), "shape"),
    "no vocabulary": (config(vocab_size=None), "shape"),
    "another architecture": (config(model_type="t5"), "(lack|shape)"),
    "no architecture": (config(model_type=None), "model type None is not served"),
    "audio": (config(model_type="qwen2_audio"), "it reads audio"),
    "heads that do not divide": (config(encoder_attention_heads=5), r"config\.json describes no network"),
    "text where a number belongs": (config(d_model="wide"), r"config\.json describes no network"),
    "quantized": (config(quantization_config={"quant_method": "gptq"}), r"'quantization_config' \(gptq\)"),
    "cut off": (cut, r"model\.safetensors cannot be read"),
    "no safetensors": (file("model.safetensors", "weights"), r"model\.safetensors cannot be read"),
    "NaN": (one(FC1, with_nan), rf"model\.safetensors: '{FC1}' holds values that are not numbers"),
    "infinity": (one(FC1, lambda tensor: tensor / 0.0), "NaN or infinity"),
    "integers": (one(FC1, lambda tensor: tensor.to(torch.int8)), rf"'{FC1}' is of type I8"),
    "float8": (one(FC1, lambda tensor: tensor.to(torch.float8_e4m3fn)), "is of type F8_E4M3"),
    "an empty tokenizer": (file("tokenizer.json", "{}"), "the tokenizer does not load, encode and decode"),
    "a tokenizer that is no JSON": (file("tokenizer.json", "{"), "the tokenizer does not load"),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "the tokenizer has no words"),
    "an empty vocabulary": (empty_vocabulary, "the tokenizer has no words"),
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


@pytest.mark.parametrize("name", WRONG)
def test_a_model_that_no_worker_could_load(name: str, tmp_path: Path) -> None:
    change, words = WRONG[name]
    change(write_bart(tmp_path))
    with pytest.raises(ConfigurationError, match=words) as error:
        check_summarizer(tmp_path)
    assert str(tmp_path) not in str(error.value).partition("cannot be read")[0]


def test_a_tokenizer_with_more_words_than_the_embedding(tmp_path: Path) -> None:
    folder = write_bart(tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    added = dict(tokenizer["added_tokens"][0]) | {"id": 5000, "content": "<extra>"}
    change_json(folder / "tokenizer.json", added_tokens=[*tokenizer["added_tokens"], added])
    with pytest.raises(ConfigurationError, match=r"the tokenizer has the id \d+ \('<extra>'\)"):
        check_summarizer(folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_input_tokens": 49}, "'handler.max_input_tokens' is 49, and this model has positions for 48"),
        ({"max_input_tokens": 1}, "'handler.max_input_tokens' must be above"),
        ({"max_input_tokens": 4.5}, "'handler.max_input_tokens' must be an integer"),
        ({"max_input": 4}, r"unknown key 'handler\.max_input'"),
    ],
)
def test_settings_that_do_not_suit_the_model(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=words):
        check_summarizer(write_bart(tmp_path), settings)


@pytest.mark.parametrize("name", WRITERS)
def test_what_can_be_served_passes(name: str, tmp_path: Path) -> None:
    check_summarizer(WRITERS[name](tmp_path))


def test_more_than_the_tokenizers_length_passes_where_positions_are_relative(tmp_path: Path) -> None:
    check_summarizer(write_t5(tmp_path), {"max_input_tokens": 4096})


def test_what_older_files_lack_or_have_too_much_passes(tmp_path: Path) -> None:
    weights(lambda tensors: tensors.update({"lm_head.extra": torch.zeros(3)}))(write_bart(tmp_path))
    one(FC1, lambda tensor: tensor.half())(tmp_path)
    check_summarizer(tmp_path)
