"""Speculative greedy search: the same tokens as without drafts, in fewer steps."""

import ctypes
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from handlers.core.step_reporting import step_callback
from handlers.engines.seq2seq import prompt_lookup, speculative_search
from handlers.engines.seq2seq.bart import Bart
from handlers.engines.seq2seq.cache import EncoderDecoderCache
from handlers.engines.seq2seq.decode_attention import DecodeAttention
from handlers.engines.seq2seq.draft_lengths import StepTimes
from handlers.engines.seq2seq.encoder_decoder import EncoderDecoder, encode_into_cache
from handlers.engines.seq2seq.generation_types import GeneratedTokens, GenerationParameters
from handlers.engines.seq2seq.greedy_search import run_greedy_search
from handlers.engines.seq2seq.linear import Linear
from handlers.engines.seq2seq.logits_processors import LogitsProcessors
from handlers.engines.seq2seq.ragged_cache import RaggedCache
from handlers.engines.seq2seq.speculative_search import run_speculative_search
from handlers.engines.seq2seq.step_kernels import LEVELS
from handlers.engines.seq2seq.step_linear import StepLinear
from handlers.engines.seq2seq.t5 import T5

VOCAB_SIZE = 24
STEP_TIMES = StepTimes({1: 1.0, 32: 1.5}, {1: 1.0, 32: 1.5})
T5_SIZES = {"vocab_size": VOCAB_SIZE, "d_model": 16, "d_kv": 32, "d_ff": 16, "num_layers": 2, "num_heads": 2}
BART_SIZES = {
    "vocab_size": VOCAB_SIZE,
    "d_model": 64,
    "max_position_embeddings": 48,
    **{f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")},
    **{f"{part}_ffn_dim": 16 for part in ("encoder", "decoder")},
}
PROCESSORS = st.fixed_dictionaries(
    {},
    optional={
        "forced_bos_token_id": st.just(5),
        "forced_eos_token_id": st.just(1),
        "bad_words_ids": st.just([[7], [3, 4]]),
        "begin_suppress_tokens": st.just([9]),
        "repetition_penalty": st.just(1.3),
        "exponential_decay_length_penalty": st.just((3, 1.2)),
        "eos_token_id": st.just([1, 6]),
    },
)
LENGTHS = st.lists(
    st.builds(
        lambda longest, shortest: (longest, min(shortest, longest)), st.integers(1, 24), st.integers(0, 24)
    ),
    min_size=1,
    max_size=4,
)
FORCE = pytest.mark.parametrize("forced_length", [None, 4])
COMPILED = pytest.mark.parametrize("kernels", [None, *LEVELS], indirect=True)
"""With compiled code, attention, linear layers and the layers of the decoder are those of a worker on a CPU."""


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def create_network(architecture: str, seed: int, kernels: ctypes.CDLL | None = None) -> EncoderDecoder:
    """Return a network with random weights, whose decoding steps are compiled with `kernels`."""
    torch.manual_seed(seed)
    model: Any = (
        T5ForConditionalGeneration(
            T5Config(**T5_SIZES, relative_attention_num_buckets=4, relative_attention_max_distance=8)
        )
        if architecture == "t5"
        else BartForConditionalGeneration(BartConfig(**BART_SIZES))
    )
    for name, weights in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weights, std=0.5)
    with torch.inference_mode():
        step_linear = Linear if kernels is None else partial(StepLinear, kernels, 32)
        network = (T5 if architecture == "t5" else Bart)(model.eval(), Linear, step_linear)
        if kernels is not None:
            network.compile_decoder(kernels)
        return network


def create_processors(model_settings: dict[str, Any]) -> LogitsProcessors:
    config = GenerationConfig(**{"decoder_start_token_id": 0, "eos_token_id": 1} | model_settings)
    return LogitsProcessors(config, VOCAB_SIZE, torch.device("cpu"))


def search(
    network: EncoderDecoder,
    processors: LogitsProcessors,
    texts: Sequence[torch.Tensor],
    parameters: Sequence[GenerationParameters],
    lookup_texts: Sequence[Sequence[int]] | None = None,
    attention: DecodeAttention | None = None,
) -> tuple[GeneratedTokens, int]:
    """Return the generated tokens, and the number of steps. `lookup_texts` is None without drafts."""
    lengths, max_cache_len = (
        [len(text) for text in texts],
        max(params.max_new_tokens for params in parameters),
    )
    steps = 0

    def count_step() -> None:
        nonlocal steps
        steps += 1

    with torch.inference_mode(), step_callback(count_step):
        if lookup_texts is None:
            cache = EncoderDecoderCache(network.shape, lengths, 1, max_cache_len, attention)
            encode_into_cache(network, cache, texts)
            return run_greedy_search(network, cache, processors, parameters), steps
        ragged = RaggedCache(network.shape, lengths, max_cache_len, attention)
        encode_into_cache(network, ragged, texts)
        generated = run_speculative_search(
            network, ragged, processors, parameters, lookup_texts, 6, STEP_TIMES
        )
        return generated, steps


def force_draft_lengths(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """Draft after every match of a single token."""
    monkeypatch.setattr(prompt_lookup, "MIN_MATCH", 1)
    monkeypatch.setattr(
        speculative_search,
        "choose_draft_lengths",
        lambda _acceptances, max_lengths, _times: [min(length, longest) for longest in max_lengths],
    )


@pytest.mark.parametrize("architecture", ["t5", "bart"])
@COMPILED
@FORCE
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 999),
    model_settings=PROCESSORS,
    lengths=LENGTHS,
    ngram_size=st.sampled_from([0, 0, 2, 3]),
    corrupt_every=st.integers(2, 9),
)
def test_tokens_equal_those_of_greedy_search(
    monkeypatch: pytest.MonkeyPatch,
    kernels: ctypes.CDLL | None,
    architecture: str,
    forced_length: int | None,
    seed: int,
    model_settings: dict[str, Any],
    lengths: list[tuple[int, int]],
    ngram_size: int,
    corrupt_every: int,
) -> None:
    if forced_length is not None:
        force_draft_lengths(monkeypatch, forced_length)
    attention = None if kernels is None else DecodeAttention(kernels, 32)
    network, processors = create_network(architecture, seed, kernels), create_processors(model_settings)
    generator = torch.Generator().manual_seed(seed)
    texts = [
        torch.randint(2, VOCAB_SIZE, (int(length),), generator=generator)
        for length in torch.randint(1, 20, (len(lengths),), generator=generator)
    ]
    parameters = [
        GenerationParameters(*length_range, no_repeat_ngram_size=ngram_size) for length_range in lengths
    ]
    expected, _ = search(network, processors, texts, parameters, None, attention)
    # Drafts from the expected tokens are right up to each corrupted token.
    lookup_texts = [
        [(token + 1) % VOCAB_SIZE if index % corrupt_every == 0 else token for index, token in enumerate(row)]
        for row in ([0, *row, 1] for row in expected)
    ]
    assert search(network, processors, texts, parameters, lookup_texts, attention)[0] == expected


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_tokens_beyond_the_vocabulary_are_not_drafted(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    force_draft_lengths(monkeypatch, 4)
    network, processors = create_network(architecture, 1), create_processors({})
    texts, parameters = [torch.arange(2, 12)], [GenerationParameters(20, 20, no_repeat_ngram_size=3)]
    (expected,), steps = search(network, processors, texts, parameters)
    monkeypatch.setattr(prompt_lookup, "MIN_MATCH", 2)
    lookup_text = [VOCAB_SIZE if index % 5 == 4 else token for index, token in enumerate(expected)]
    generated, fewer_steps = search(network, processors, texts, parameters, [lookup_text])
    assert generated == [expected]
    assert fewer_steps < steps


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_right_drafts_save_steps(architecture: str) -> None:
    network, processors = create_network(architecture, 1), create_processors({})
    texts = [torch.arange(2, 12), torch.arange(12, 17), torch.arange(3, 20)]
    # Without end tokens and repeated n-grams, all three texts have their full lengths.
    parameters = [GenerationParameters(length, length, no_repeat_ngram_size=3) for length in (40, 30, 40)]
    expected, steps = search(network, processors, texts, parameters)
    generated, fewer_steps = search(network, processors, texts, parameters, expected)
    assert generated == expected
    assert steps == 40
    assert fewer_steps <= 20
