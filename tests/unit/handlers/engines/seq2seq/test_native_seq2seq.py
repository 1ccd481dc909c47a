"""Equality of the native engine with transformers, for all variants of its architectures."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    MarianConfig,
    MBartConfig,
    MT5Config,
    MT5ForConditionalGeneration,
    MvpConfig,
    PegasusConfig,
    PLBartConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from handlers.core.device import Device
from handlers.engines.base import EngineUnavailable
from handlers.engines.seq2seq import beam_search, prompt_lookup, speculative_search
from handlers.engines.seq2seq.cache import EncoderDecoderCache
from handlers.engines.seq2seq.encoder_decoder import encode_into_cache
from handlers.engines.seq2seq.generation_types import GenerationBatch, GenerationParameters
from handlers.engines.seq2seq.linear import Linear
from handlers.engines.seq2seq.native_seq2seq import NETWORKS, NativeSeq2Seq
from handlers.engines.seq2seq.torch_seq2seq import TorchSeq2Seq
from tests.conftest import ROOT
from tests.unit.handlers.text.tiny import write_t5

FP32 = Device(torch.device("cpu"), torch.float32, 1)

SIZES = {"vocab_size": 60, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
T5_SIZES = SIZES | {"d_model": 64, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4}
BART_SIZES = SIZES | {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "forced_eos_token_id": 1,
}


def _like_bart(config: Any, generation: Mapping[str, Any] = MappingProxyType({}), **settings: Any) -> Any:
    model: Any = AutoModelForSeq2SeqLM.from_config(config(**BART_SIZES | {"decoder_layers": 3} | settings))
    model.generation_config.update(**generation)
    return model


def _randomize(model: Any) -> None:
    """Give all weights effects that a test can see, except computed positions."""
    for name, weights in model.named_parameters():
        if weights.requires_grad:
            is_norm_scale = "norm" in name and name.endswith("weight")
            torch.nn.init.normal_(weights, mean=float(is_norm_scale), std=0.2)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    FP32.apply()


MODELS: dict[str, Any] = {
    "mt5": lambda: MT5ForConditionalGeneration(MT5Config(**T5_SIZES)),
    "t5 1.1": lambda: T5ForConditionalGeneration(
        T5Config(
            **T5_SIZES,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            relative_attention_max_distance=6,
            relative_attention_num_buckets=4,
        )
    ),
    "t5 silu": lambda: T5ForConditionalGeneration(T5Config(**T5_SIZES, feed_forward_proj="silu")),
    "t5 of unequal halves": lambda: T5ForConditionalGeneration(T5Config(**T5_SIZES, num_decoder_layers=1)),
    "bart of unequal halves": lambda: BartForConditionalGeneration(
        BartConfig(**BART_SIZES | {"decoder_layers": 1, "encoder_attention_heads": 2})
    ),
    "bart scaled, relu": lambda: BartForConditionalGeneration(
        BartConfig(**BART_SIZES, scale_embedding=True, activation_function="relu")
    ),
    "bart, embeddings apart": lambda: BartForConditionalGeneration(
        BartConfig(**BART_SIZES, tie_word_embeddings=False)
    ),
    "pegasus": lambda: _like_bart(PegasusConfig, activation_function="relu", scale_embedding=True),
    "pegasus, odd width": lambda: _like_bart(
        PegasusConfig, d_model=33, encoder_attention_heads=3, decoder_attention_heads=3
    ),
    "mbart": lambda: _like_bart(MBartConfig, scale_embedding=True, decoder_start_token_id=5),
    "mbart to a language": lambda: _like_bart(
        MBartConfig, {"forced_bos_token_id": 5}, decoder_start_token_id=1
    ),
    "marian": lambda: _like_bart(
        MarianConfig,
        {"bad_words_ids": [[59]]},
        pad_token_id=59,
        decoder_start_token_id=59,
        scale_embedding=True,
        activation_function="swish",
    ),
    "marian, vocabularies apart": lambda: _like_bart(
        MarianConfig, share_encoder_decoder_embeddings=False, tie_word_embeddings=False, decoder_vocab_size=47
    ),
    "mvp": lambda: _like_bart(MvpConfig),
    "plbart": lambda: _like_bart(PLBartConfig, scale_embedding=True, decoder_start_token_id=5),
    "several ends": lambda: BartForConditionalGeneration(
        BartConfig(**BART_SIZES | {"eos_token_id": [1, 7, 9, 1000], "forced_eos_token_id": 7})
    ),
}


def test_beams_of_all_texts_are_copied_from_the_device_together(tmp_path, monkeypatch):
    """Each step of a search reads one tensor, on a GPU with a copy to the host that waits for the step."""
    events = []
    write_t5(tmp_path)
    engine = NativeSeq2Seq()
    engine.load(tmp_path, FP32)
    to_list = torch.Tensor.tolist

    def record(tensor):
        events.append("copy")
        return to_list(tensor)

    monkeypatch.setattr(beam_search, "report_step", lambda: events.append("step"))
    monkeypatch.setattr(torch.Tensor, "tolist", record)
    parameters = [GenerationParameters(4, min_new_tokens=4, num_beams=2)] * 3
    engine.run(GenerationBatch([[5, 6], [7], [8, 9, 10]], parameters))
    assert events == ["step", "copy"] * 4


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.full
def test_generated_tokens_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = MODELS[name]()
    _randomize(model)
    model.save_pretrained(tmp_path)
    generator = torch.Generator().manual_seed(5)
    texts = [torch.randint(2, 59, (length,), generator=generator).tolist() for length in (1, 9, 9, 20)]
    engines = (NativeSeq2Seq(), TorchSeq2Seq())
    for engine in engines:
        engine.load(tmp_path, FP32)
    for parameters in (
        GenerationParameters(10),
        GenerationParameters(10, 6),
        GenerationParameters(10, num_beams=2, length_penalty=2.0),
        GenerationParameters(10, 4, num_beams=4, early_stopping=True, no_repeat_ngram_size=2),
    ):
        native, expected = (
            [engine.run(GenerationBatch([text], [parameters]))[0] for text in texts] for engine in engines
        )
        assert native == expected
        assert engines[0].run(GenerationBatch(texts, [parameters] * len(texts))) == expected


@pytest.mark.parametrize("name", ["marian", "marian, vocabularies apart", "t5 1.1"])
@pytest.mark.parametrize("ngram_size", [0, 3])
def test_drafts_do_not_change_tokens(
    name: str, ngram_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two vocabularies, ids of the source can be beyond that of the output."""
    monkeypatch.setattr(prompt_lookup, "MIN_MATCH", 1)
    monkeypatch.setattr(
        speculative_search,
        "choose_draft_lengths",
        lambda _acceptances, max_lengths, _times: [min(4, longest) for longest in max_lengths],
    )
    torch.manual_seed(1)
    model = MODELS[name]()
    _randomize(model)
    model.save_pretrained(tmp_path)
    engines = NativeSeq2Seq(), NativeSeq2Seq(prompt_lookup_num_tokens=4)
    for engine in engines:
        engine.load(tmp_path, FP32)
    texts = [
        [first, 58, 59] * 4 for first in range(2, 47)
    ]  # each token of the output precedes 58 in some text
    parameters = [GenerationParameters(16, 16, no_repeat_ngram_size=ngram_size)] * len(texts)
    expected, generated = (engine.run(GenerationBatch(texts, parameters)) for engine in engines)
    assert generated == expected


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_transformers(name: str) -> None:
    torch.manual_seed(2)
    model = MODELS[name]().eval()
    _randomize(model)
    text, answer = torch.tensor([5, 6, 7, 8, 1]), torch.tensor([0, 9, 4, 11])
    with torch.inference_mode():
        expected = model(input_ids=text[None], decoder_input_ids=answer[None]).logits[0]
        network = NETWORKS[model.config.model_type](model, Linear)
        cache = EncoderDecoderCache(network.shape, [len(text)], 1, len(answer))
        encode_into_cache(network, cache, [text])
        logits = [network.decode_step(answer[i : i + 1], i, cache)[0] for i in range(len(answer))]
    torch.testing.assert_close(torch.stack(logits), expected, atol=1e-4, rtol=1e-4)


def test_all_model_types_are_tested() -> None:
    assert {model().config.model_type for model in MODELS.values()} | {"t5"} == NETWORKS.keys()


def test_documented_model_types_are_those_of_the_engine() -> None:
    page = (ROOT / "docs" / "generation.md").read_text(encoding="utf-8")
    [rows] = re.findall(r"^\| `model_type` .*\n\|---\|---\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert (
        set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in rows.splitlines())))
        == NETWORKS.keys()
    )


def test_prompts_in_layers_raise_engine_unavailable(tmp_path: Path) -> None:
    _like_bart(MvpConfig, use_prompt=True, prompt_length=3, prompt_mid_dim=8).save_pretrained(tmp_path)
    with pytest.raises(EngineUnavailable, match="use_prompt"):
        NativeSeq2Seq().load(tmp_path, FP32)


def test_unsupported_generation_setting_raises_engine_unavailable(tmp_path: Path) -> None:
    write_t5(tmp_path)
    config = GenerationConfig.from_pretrained(tmp_path)
    config.encoder_no_repeat_ngram_size = 3
    config.save_pretrained(tmp_path)
    with pytest.raises(EngineUnavailable, match="encoder_no_repeat_ngram_size"):
        NativeSeq2Seq().load(tmp_path, FP32)
