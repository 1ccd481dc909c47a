"""The parts of our own generation: caches that shrink, scores that change as transformers', the largest of many."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from handlers.core.device import FAST_INT8, Device, has_any
from handlers.engines.base import EngineUnavailable
from handlers.engines.native_seq2seq import NativeSeq2Seq
from handlers.engines.seq2seq import logits_processors
from handlers.engines.seq2seq.bart import Bart
from handlers.engines.seq2seq.beams import blockwise_topk
from handlers.engines.seq2seq.cache import Cache, Shape
from handlers.engines.seq2seq.choice import choose
from handlers.engines.seq2seq.linear import Int8Linear, Linear
from handlers.engines.seq2seq.network import prefill
from handlers.engines.seq2seq.t5 import T5
from handlers.engines.torch_seq2seq import TorchSeq2Seq
from handlers.text.config import SummarizerConfig
from handlers.text.generation import GenerationBatch, GenerationParameters
from tests.unit.handlers.text.tiny import write_bart, write_t5

CPU = torch.device("cpu")
FP32 = Device(CPU, torch.float32, 1)
NEVER = float("-inf")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    FP32.apply()


def filled() -> Cache:
    """Three texts of one, three and two tokens, two beams each; every number says whose it is."""
    cache = Cache(Shape(1, 1, 1, torch.float32, CPU), [1, 3, 2], beams=2, capacity=4)
    for text, length in enumerate([1, 3, 2]):
        cache.put_cross_kv(text, torch.full((length, 1, 2, 1, 1), float(text)))
    for position in range(2):
        cache.append(0, position, torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 1, 1) + 10 * position)
    return cache


def test_a_cache_gives_up_a_text() -> None:
    cache = filled()
    cache.drop(0)
    assert (cache.texts, cache.rows) == (2, 4)
    keys, values = cache.append(0, 2, torch.zeros(4, 2, 1, 1))
    assert keys.shape == (4, 1, 3, 1)
    assert keys[:, 0, 0, 0].tolist() == values[:, 0, 0, 0].tolist() == [4, 5, 2, 3]
    assert cache.cross_kv(0)[0, :, 0, 0, 0].tolist() == [2, 1]
    assert cache.mask is not None
    assert cache.mask.isinf()[:, 0, 0].tolist() == [[False, False, True], [False] * 3]
    cache.drop(1)
    cache.drop(0)
    assert cache.rows == 0


def test_beams_go_on_from_others() -> None:
    cache = filled()
    cache.reorder(torch.tensor([1, 1, 2, 3, 5, 4]), 1)
    keys, _ = cache.append(0, 2, torch.zeros(6, 2, 1, 1))
    assert keys[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert keys[:, 0, 1, 0].tolist() == [11, 11, 12, 13, 15, 14]


def test_texts_of_one_length_need_no_mask() -> None:
    assert Cache(Shape(1, 1, 1, torch.float32, CPU), [3, 3], 1, 1).mask is None


@settings(max_examples=30, deadline=None, derandomize=True)
@given(length=st.integers(1, 3000), count=st.integers(1, 16), seed=st.integers(0, 99))
def test_the_largest_are_those_of_topk(length: int, count: int, seed: int) -> None:
    count = min(count, length)
    scores = torch.rand(3, length, generator=torch.Generator().manual_seed(seed))
    scores[0, : length // 2] = NEVER
    values, places = blockwise_topk(scores, count)
    assert torch.equal(values, scores.topk(count)[0])
    assert torch.equal(scores.gather(1, places), values)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"forced_bos_token_id": 5, "forced_eos_token_id": 1},
    {"bad_words_ids": [[7], [3, 4]], "suppress_tokens": [8], "begin_suppress_tokens": [9]},
    {"repetition_penalty": 1.5, "renormalize_logits": True, "exponential_decay_length_penalty": (2, 1.5)},
    {"eos_token_id": [1, 6], "forced_eos_token_id": [1, 6], "remove_invalid_values": True},
    {"sequence_bias": [[[3], 2.0]]},
]


@pytest.mark.parametrize("own", SETTINGS, ids=range(len(SETTINGS)))
@pytest.mark.parametrize("length", [1, 2, 5, 6])
@pytest.mark.parametrize("ngram", [0, 1, 3])
def test_scores_change_as_transformers_changes_them(own: dict[str, Any], length: int, ngram: int) -> None:
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=12, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )
    config = GenerationConfig(**{"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0} | own)
    theirs = GenerationConfig(
        **config.to_diff_dict() | {"max_new_tokens": 6, "min_new_tokens": 3, "no_repeat_ngram_size": ngram}
    )
    theirs.max_length = 7
    model._prepare_special_tokens(theirs)
    drawn = torch.Generator().manual_seed(length)
    sequences = torch.randint(2, 5, (4, length), generator=drawn)
    sequences[:, 0] = 0
    scores = torch.randn(4, 12, generator=drawn)
    expected = model._get_logits_processor(theirs, 1, device="cpu")(sequences, scores.clone())
    request = GenerationParameters(6, 3, no_repeat_ngram_size=ngram)
    found = logits_processors.process_logits(
        logits_processors.LogitsProcessors(config, 12, CPU), [request] * 4, sequences, scores.clone()
    )
    torch.testing.assert_close(found, expected)


def test_rows_of_different_requests_keep_their_own_lengths() -> None:
    config = GenerationConfig(decoder_start_token_id=0, eos_token_id=1, forced_eos_token_id=1)
    requests = [GenerationParameters(3), GenerationParameters(9, 5), GenerationParameters(9)]
    sequences = torch.tensor([[0, 5, 6]] * 3)
    found = logits_processors.process_logits(
        logits_processors.LogitsProcessors(config, 12, CPU), requests, sequences, torch.ones(3, 8)
    )
    assert found[0].tolist() == [NEVER, 0, *[NEVER] * 6]
    assert found[1].tolist() == [1, NEVER, *[1] * 6]
    assert found[2].tolist() == [1] * 8


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("biased", [True, False])
def test_a_packed_layer_is_torchs(activation: str, biased: bool) -> None:
    weight, bias = torch.randn(24, 16).bfloat16(), torch.randn(24).bfloat16() if biased else None
    x, residual = torch.randn(2, 5, 16).bfloat16(), torch.randn(2, 5, 24).bfloat16()
    layer = Linear(weight, bias, activation)
    plain = Linear(weight.float(), None if bias is None else bias.float(), activation)
    torch.testing.assert_close(layer(x).float(), plain(x.float()), atol=0.05, rtol=0.02)
    if activation == "none":
        added = plain.add_to(x.float(), residual.float())
        torch.testing.assert_close(layer.add_to(x, residual).float(), added, atol=0.08, rtol=0.02)


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


@pytest.mark.skipif(not has_any(FAST_INT8), reason="this CPU has no fast int8")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_in_int8_is_near_and_does_not_look_at_its_neighbors(dtype: torch.dtype) -> None:
    drawn = torch.Generator().manual_seed(3)
    weight, x, bias = (torch.randn(*shape, generator=drawn) for shape in ((24, 64), (200, 64), (24,)))
    weight[3], x[2] = 0.0, 0.0
    x[4] *= 1000  # an outlier among rows: it must not take the others' exactness
    layer = Int8Linear(weight.to(dtype), bias.to(dtype), "relu")
    found, expected = layer(x.to(dtype)).float(), torch.relu(x @ weight.T + bias)
    assert torch.linalg.vector_norm(found - expected, dim=1).le(0.03 * expected.norm(dim=1)).all()
    for row in range(len(x)):
        assert layer(x[row : row + 1].to(dtype)).float().equal(found[row : row + 1])
    plain, residual = Int8Linear(weight.to(dtype)), torch.randn(200, 24, generator=drawn).to(dtype)
    assert plain.add_to(x.to(dtype), residual).equal(plain(x.to(dtype)) + residual)


def test_what_cannot_be_int8_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bart(tmp_path)
    engine, reason = choose(tmp_path, SummarizerConfig(engine="torch", precision="int8"), FP32)
    assert (engine.name, reason) == ("torch", "int8 needs the engine native")
    monkeypatch.setattr("handlers.engines.seq2seq.choice.has_any", lambda flags: False)
    engine, reason = choose(tmp_path, SummarizerConfig(precision="int8"), FP32)
    assert (engine.name, engine.describe().get("precision")) == ("native", None)
    assert reason.startswith("not int8: it needs a CPU with one of amx_int8")


NETWORKS: dict[str, Any] = {
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
    "several ends": lambda: BartForConditionalGeneration(
        BartConfig(**BART_SIZES | {"eos_token_id": [1, 7, 9, 1000], "forced_eos_token_id": 7})
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.full
def test_other_networks_generate_as_in_transformers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = NETWORKS[name]()
    for part, weights in model.named_parameters():
        if "norm" not in part:
            torch.nn.init.normal_(weights, std=0.2)
    model.save_pretrained(tmp_path)
    drawn = torch.Generator().manual_seed(5)
    texts = [torch.randint(2, 60, (length,), generator=drawn).tolist() for length in (1, 4, 9, 9, 20)]
    engines = (NativeSeq2Seq(), TorchSeq2Seq())
    for engine in engines:
        engine.load(tmp_path, FP32)
    for parameters in (
        GenerationParameters(12),
        GenerationParameters(12, 6),
        GenerationParameters(12, num_beams=2, length_penalty=2.0),
        GenerationParameters(12, 4, num_beams=4, early_stopping=True, no_repeat_ngram_size=2),
    ):
        ours, theirs = (
            [engine.run(GenerationBatch([text], [parameters]))[0] for text in texts] for engine in engines
        )
        assert ours == theirs
        assert engines[0].run(GenerationBatch(texts, [parameters] * len(texts))) == theirs


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_transformers(name: str) -> None:
    torch.manual_seed(2)
    model = NETWORKS[name]().eval()
    text, answer = torch.tensor([5, 6, 7, 8, 1]), torch.tensor([0, 9, 4, 11])
    with torch.inference_mode():
        expected = model(input_ids=text[None], decoder_input_ids=answer[None]).logits[0]
        network = (Bart if name.startswith(("bart", "several")) else T5)(model, Linear)
        cache = Cache(network.shape, [len(text)], 1, len(answer))
        prefill(network, cache, [text])
        found = [network.step(answer[i : i + 1], i, cache)[0] for i in range(len(answer))]
    torch.testing.assert_close(torch.stack(found), expected, atol=1e-4, rtol=1e-4)


def test_what_is_put_on_is_never_chosen() -> None:
    scores = torch.full((1, 4 * 50_259), NEVER)
    scores[0, -1] = 1.0
    values, places = blockwise_topk(scores, 16)
    assert (values[0, 0], places[0, 0]) == (1.0, scores.shape[1] - 1)
    assert places.max() < scores.shape[1]


def test_an_unknown_architecture_is_left_to_transformers(tmp_path: Path) -> None:
    config = MarianConfig(
        vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0, max_position_embeddings=32,
    )  # fmt: skip
    MarianMTModel(config).save_pretrained(tmp_path)
    engine, reason = choose(tmp_path, SummarizerConfig(), FP32)
    assert engine.name == "torch"
    assert "this model is marian" in reason
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path).config.model_type == "marian"
    assert engine.run(GenerationBatch([(5, 6)], [GenerationParameters(3)]))


def test_what_needs_the_source_is_left_to_transformers(tmp_path: Path) -> None:
    write_t5(tmp_path)
    config = GenerationConfig.from_pretrained(tmp_path)
    config.encoder_no_repeat_ngram_size = 3
    config.save_pretrained(tmp_path)
    with pytest.raises(EngineUnavailable, match="encoder_no_repeat_ngram_size"):
        NativeSeq2Seq().load(tmp_path, FP32)


@pytest.mark.parametrize("start", [None, [2]])
def test_a_start_that_is_not_one_token_is_left_to_transformers(start: Any) -> None:
    with pytest.raises(EngineUnavailable, match="starts with"):
        logits_processors.LogitsProcessors(GenerationConfig(decoder_start_token_id=start), 12, CPU)


def test_the_engine_can_be_asked_for(tmp_path: Path) -> None:
    write_bart(tmp_path)
    names = {
        name: choose(tmp_path, SummarizerConfig(engine=name), FP32)[0].name
        for name in ("auto", "native", "torch")
    }
    assert names == {"auto": "native", "native": "native", "torch": "torch"}
