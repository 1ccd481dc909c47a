"""Selection of the best candidates of a beam search."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.engines.seq2seq.beam_search import blockwise_topk

MINUS_INFINITY = float("-inf")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(length=st.integers(1, 3000), count=st.integers(1, 16), seed=st.integers(0, 99))
def test_blockwise_topk_equals_topk(length: int, count: int, seed: int) -> None:
    count = min(count, length)
    scores = torch.rand(3, length, generator=torch.Generator().manual_seed(seed))
    scores[0, : length // 2] = MINUS_INFINITY
    values, indices = blockwise_topk(scores, count)
    assert torch.equal(values, scores.topk(count)[0])
    assert torch.equal(scores.gather(1, indices), values)


def test_padding_of_blocks_is_never_selected() -> None:
    scores = torch.full((1, 4 * 50_259), MINUS_INFINITY)
    scores[0, -1] = 1.0
    values, indices = blockwise_topk(scores, 16)
    assert (values[0, 0], indices[0, 0]) == (1.0, scores.shape[1] - 1)
    assert indices.max() < scores.shape[1]
