"""The lengths of texts and summaries in each workload."""

import random

import pytest

from benchmarks.scenarios.text_models import BART_LARGE, EXTRA_TOKENS, T5_SMALL, WORD
from benchmarks.scenarios.workloads import BLOCK_SIZE, REQUEST_COUNT, WORKLOADS, draw_text, make_probe

_LONG, _BEAMS = WORKLOADS["b"], WORKLOADS["c"]


def test_articles_have_realistic_lengths():
    lengths = _LONG.input_lengths
    assert (len(lengths), min(lengths), max(lengths)) == (REQUEST_COUNT, 55, 2451)
    assert sum(length > 512 for length in lengths) == 0.8 * REQUEST_COUNT
    assert sum(length > 1024 for length in lengths) == 0.4 * REQUEST_COUNT
    assert _BEAMS.input_lengths == lengths
    outputs = [WORKLOADS[name].output_lengths for name in "abc"]
    assert [(min(lengths), max(lengths)) for lengths in outputs] == [(32, 32), (30, 142), (56, 142)]


@pytest.mark.parametrize("lengths", [_LONG.input_lengths, _LONG.output_lengths, _BEAMS.output_lengths])
def test_blocks_have_similar_lengths(lengths):
    blocks = [sorted(lengths[i : i + BLOCK_SIZE]) for i in range(0, REQUEST_COUNT, BLOCK_SIZE)]
    for ranks in zip(*blocks, strict=True):  # the shortest of all blocks, then the second shortest, ...
        assert max(ranks) - min(ranks) < (max(lengths) - min(lengths)) / 4
    assert len({tuple(block) for block in blocks}) == len(blocks)


@pytest.mark.parametrize("model", [T5_SMALL, BART_LARGE], ids=lambda model: model.name)
def test_texts_are_repeatable_and_have_the_given_lengths(model):
    requests = _LONG.requests(model)
    assert requests == _LONG.requests(model)
    assert len({request.text for request in requests}) == REQUEST_COUNT
    for request, tokens in zip(requests, _LONG.input_lengths, strict=True):
        assert request.text.count(WORD) == len(request.text.split()) == tokens - EXTRA_TOKENS


def test_first_half_of_the_words_ends_phrases():
    for phrase_ends in (0.0, 0.3, 1.0):
        words = draw_text(random.Random(1), 1000, T5_SMALL, phrase_ends).split()
        ends = sum(int(word.removeprefix(WORD)) < T5_SMALL.word_count // 2 for word in words)
        assert ends / len(words) == pytest.approx(phrase_ends, abs=0.05)


def test_parameters_fix_the_length():
    greedy, beams = (WORKLOADS[name].requests(BART_LARGE)[0].parameters for name in ("a", "c"))
    assert greedy["min_new_tokens"] == greedy["max_new_tokens"] == 32
    assert beams.items() >= {"num_beams": 4, "no_repeat_ngram_size": 3, "early_stopping": True}.items()
    assert make_probe(T5_SMALL).parameters["max_new_tokens"] == 4
