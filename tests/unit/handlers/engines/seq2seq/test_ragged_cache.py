"""A cache with rows at different positions."""

import torch

from handlers.engines.seq2seq.cache import DecoderShape
from handlers.engines.seq2seq.ragged_cache import RaggedCache

SHAPE = DecoderShape(num_layers=1, num_heads=1, head_dim=1, dtype=torch.float32, device=torch.device("cpu"))


def column(*values: float) -> torch.Tensor:
    """Return keys and values [tokens, 2, 1, 1] with these numbers."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None, None].expand(-1, 2, 1, 1)


def test_tokens_of_rows_are_stored_at_their_positions() -> None:
    cache = RaggedCache(SHAPE, [2, 2], 8)
    assert cache.start_step([0, 0], [1, 1]) == 0
    cache.update(0, 0, column(10, 20))
    positions = cache.start_step([1, 1], [3, 1])
    assert isinstance(positions, torch.Tensor)
    assert positions.tolist() == [1, 2, 3, 1]
    keys, values = cache.update(0, positions, column(11, 12, 13, 21))
    assert torch.equal(keys, values)
    assert keys[:, 0, :, 0].tolist() == [[10, 11, 12, 13], [20, 21, 0, 0]]
    # The two last tokens of the first row are rejected and overwritten.
    positions = cache.start_step([2, 2], [1, 2])
    assert isinstance(positions, torch.Tensor)
    keys, _ = cache.update(0, positions, column(32, 42, 43))
    assert keys[:, 0, :, 0].tolist() == [[10, 11, 32, 13], [20, 21, 42, 43]]
    mask = cache.causal_mask(positions)
    assert mask is not None
    assert mask.isinf()[:, 0].tolist() == [
        [[False, False, False, True]] * 2,
        [[False, False, False, True], [False] * 4],
    ]


def test_grouped_queries_return_to_their_order() -> None:
    cache = RaggedCache(SHAPE, [1, 1, 1], 8)
    cache.start_step([4, 0, 2], [2, 1, 3])
    queries = torch.arange(6.0)[:, None]
    grouped = cache.group_queries(queries, 3)
    assert grouped[..., 0].tolist() == [[0, 1, 0], [2, 2, 2], [3, 4, 5]]
    assert torch.equal(cache.ungroup_queries(grouped), queries)


def test_equal_positions_need_no_mask() -> None:
    cache = RaggedCache(SHAPE, [1, 1], 8)
    cache.start_step([0, 0], [2, 1])
    assert cache.start_step([3, 3], [1, 1]) == 3
    assert cache.causal_mask(3) is None
    assert torch.equal(cache.group_queries(torch.arange(2.0), 2), torch.tensor([[0.0], [1.0]]))


def test_removed_row_is_replaced_by_the_last_one() -> None:
    cache = RaggedCache(SHAPE, [1, 1], 4)
    positions = cache.start_step([0, 0], [1, 3])
    cache.update(0, positions, column(10, 20, 21, 22))
    cache.remove_sequence(0)
    positions = cache.start_step([2], [2])
    keys, _ = cache.update(0, positions, column(32, 33))
    assert keys[0, 0, :, 0].tolist() == [20, 21, 32, 33]
