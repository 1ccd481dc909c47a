"""How long the texts of each workload are, in and out."""

import pytest

from benchmarks.texts.models import BART_LARGE, T5_SMALL, WORD
from benchmarks.texts.workloads import BLOCK, COUNT, WORKLOADS, probe


def test_articles_are_as_long_as_real_ones():
    lengths = WORKLOADS["b"].inputs
    assert (len(lengths), min(lengths), max(lengths)) == (COUNT, 55, 2451)
    assert sum(length > 512 for length in lengths) == 0.8 * COUNT
    assert sum(length > 1024 for length in lengths) == 0.4 * COUNT
    assert WORKLOADS["c"].inputs == lengths


@pytest.mark.parametrize(("name", "least", "most"), [("a", 32, 32), ("b", 30, 142), ("c", 56, 142)])
def test_summaries_are_within_their_bounds(name, least, most):
    outputs = WORKLOADS[name].outputs
    assert (len(outputs), min(outputs), max(outputs)) == (COUNT, least, most)


@pytest.mark.parametrize("lengths", [WORKLOADS["b"].inputs, WORKLOADS["b"].outputs, WORKLOADS["c"].outputs])
def test_every_block_is_like_the_others(lengths):
    blocks = [sorted(lengths[at : at + BLOCK]) for at in range(0, COUNT, BLOCK)]
    for each in zip(*blocks, strict=True):  # the shortest of all blocks, then the second ones, ...
        assert max(each) - min(each) < (max(lengths) - min(lengths)) / 4
    assert len({tuple(block) for block in blocks}) == len(blocks)


@pytest.mark.parametrize("model", [T5_SMALL, BART_LARGE], ids=lambda model: model.name)
def test_texts_are_drawn_once_and_for_all(model):
    asked = WORKLOADS["b"].requests(model)
    assert asked == WORKLOADS["b"].requests(model)
    assert len({each.text for each in asked}) == COUNT
    for each, tokens in zip(asked, WORKLOADS["b"].inputs, strict=True):
        assert each.text.count(WORD) == len(each.text.split()) == tokens - model.around


def test_lengths_are_forced_and_the_rest_is_the_models():
    [greedy, beams] = [WORKLOADS[name].requests(BART_LARGE)[0].parameters for name in ("a", "c")]
    assert greedy["min_new_tokens"] == greedy["max_new_tokens"] == 32
    assert greedy["num_beams"] == 1
    wanted = {"num_beams": 4, "length_penalty": 2.0, "no_repeat_ngram_size": 3, "early_stopping": True}
    assert wanted.items() <= beams.items()
    assert probe(T5_SMALL).parameters["max_new_tokens"] == 4
