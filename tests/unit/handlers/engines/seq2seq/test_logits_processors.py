"""Logits processors: equality with transformers, and rows with parameters of different requests."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

from handlers.engines.base import EngineUnavailable
from handlers.engines.seq2seq.generation_types import GenerationParameters
from handlers.engines.seq2seq.logits_processors import LogitsProcessors, process_logits

CPU = torch.device("cpu")
MINUS_INFINITY = float("-inf")
SETTINGS: list[dict[str, Any]] = [
    {},
    {"forced_bos_token_id": 5, "forced_eos_token_id": 1},
    {"bad_words_ids": [[7], [3, 4]], "suppress_tokens": [8], "begin_suppress_tokens": [9]},
    {"repetition_penalty": 1.5, "renormalize_logits": True, "exponential_decay_length_penalty": (2, 1.5)},
    {"eos_token_id": [1, 6], "forced_eos_token_id": [1, 6], "remove_invalid_values": True},
    {"sequence_bias": [[[3], 2.0]]},
]


@pytest.mark.parametrize("model_settings", SETTINGS, ids=range(len(SETTINGS)))
@pytest.mark.parametrize("length", [1, 2, 5, 6])
@pytest.mark.parametrize("ngram_size", [0, 1, 3])
def test_processed_scores_equal_those_of_transformers(
    model_settings: dict[str, Any], length: int, ngram_size: int
) -> None:
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=12, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )
    tokens = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    config = GenerationConfig(**tokens | model_settings)
    request_settings = {"max_new_tokens": 6, "min_new_tokens": 3, "no_repeat_ngram_size": ngram_size}
    transformers_config = GenerationConfig(**config.to_diff_dict() | request_settings)
    transformers_config.max_length = 7
    model._prepare_special_tokens(transformers_config)
    generator = torch.Generator().manual_seed(length)
    input_ids = torch.randint(2, 5, (4, length), generator=generator)
    input_ids[:, 0] = 0
    scores = torch.randn(4, 12, generator=generator)
    processor = model._get_logits_processor(transformers_config, 1, device="cpu")
    expected = processor(input_ids, scores.clone())
    parameters = GenerationParameters(6, 3, no_repeat_ngram_size=ngram_size)
    processors = LogitsProcessors(config, 12, CPU)
    processed = process_logits(processors, [parameters] * 4, input_ids, scores.clone())
    torch.testing.assert_close(processed, expected)


def test_rows_use_the_lengths_of_their_request() -> None:
    config = GenerationConfig(decoder_start_token_id=0, eos_token_id=1, forced_eos_token_id=1)
    parameters = [GenerationParameters(3), GenerationParameters(9, 5), GenerationParameters(9)]
    input_ids = torch.tensor([[0, 5, 6]] * 3)
    processed = process_logits(LogitsProcessors(config, 12, CPU), parameters, input_ids, torch.ones(3, 8))
    assert processed[0].tolist() == [MINUS_INFINITY, 0, *[MINUS_INFINITY] * 6]
    assert processed[1].tolist() == [1, MINUS_INFINITY, *[1] * 6]
    assert processed[2].tolist() == [1] * 8


@pytest.mark.parametrize("start", [None, [2]])
def test_invalid_decoder_start_token_raises_engine_unavailable(start: Any) -> None:
    with pytest.raises(EngineUnavailable, match="decoder_start_token_id must be one integer"):
        LogitsProcessors(GenerationConfig(decoder_start_token_id=start), 12, CPU)
