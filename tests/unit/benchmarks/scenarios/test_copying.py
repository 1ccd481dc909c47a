"""Copying of phrases, in smaller networks with heads of the same size."""

from itertools import pairwise

import pytest
import torch

from benchmarks.scenarios.copying import add_copying
from benchmarks.scenarios.text_models import BART_LARGE, T5_SMALL
from tests.unit.benchmarks.scenarios.small_networks import create_small_network

VOCABULARY, FIRST_WORD = 404, 4


@pytest.mark.parametrize("model", [T5_SMALL, BART_LARGE], ids=lambda model: model.name)
@pytest.mark.parametrize(("ends", "low", "high"), [(0.0, 0.8, 1.0), (0.2, 0.4, 0.9), (1.0, 0.0, 0.1)])
def test_summary_continues_phrases_of_the_source(model, ends, low, high):
    network = create_small_network(model, VOCABULARY).eval()
    rng = torch.Generator().manual_seed(5)
    source = FIRST_WORD + torch.randperm(VOCABULARY - FIRST_WORD, generator=rng)[:100]
    add_copying(network, torch.rand(VOCABULARY, generator=rng) < ends)
    with torch.no_grad():
        network.get_input_embeddings().weight[:FIRST_WORD] = 0.0
    tokens = network.generate(
        source[None], num_beams=1, do_sample=False, min_new_tokens=40, max_new_tokens=40
    )
    successors, words = dict(pairwise(source.tolist())), tokens[0, 2:-1].tolist()
    continued = sum(successors.get(word) == following for word, following in pairwise(words))
    assert low <= continued / (len(words) - 1) <= high
