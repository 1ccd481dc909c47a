"""Batches hold equal parameters, bounded padding and bounded size, and every item once."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.text.batching import MAX_PADDED_RATIO, collate, plan
from handlers.text.generation import GenerationParameters
from handlers.text.types import TextItem

GREEDY = GenerationParameters(max_new_tokens=10)
BEAMS = GenerationParameters(max_new_tokens=10, num_beams=4)


def item(length: int, parameters: GenerationParameters = GREEDY) -> TextItem:
    return TextItem(tuple(range(1, length + 1)), False, parameters)


def test_equal_parameters_share_a_batch() -> None:
    items = [item(5), item(5, BEAMS), item(6), item(7, BEAMS)]
    assert sorted(map(sorted, plan(items, 10_000))) == [[0, 2], [1, 3]]


def test_long_and_short_texts_are_kept_apart() -> None:
    assert sorted(map(sorted, plan([item(100), item(2), item(90), item(3)], 10_000))) == [[0, 2], [1, 3]]


def test_the_size_counts_beams_and_the_summary() -> None:
    items = [item(10, BEAMS)] * 4
    assert [len(batch) for batch in plan(items, 2 * 4 * (10 + 10))] == [2, 2]


def test_an_item_above_the_bound_runs_alone() -> None:
    assert sorted(plan([item(500), item(400)], 100)) == [[0], [1]]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=20),
    beams=st.lists(st.booleans(), min_size=20, max_size=20),
    max_tokens=st.integers(1, 2000),
)
def test_every_item_is_in_one_batch_within_the_bounds(
    lengths: list[int], beams: list[bool], max_tokens: int
) -> None:
    items = [item(length, BEAMS if beam else GREEDY) for length, beam in zip(lengths, beams, strict=False)]
    batches = plan(items, max_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(items)))
    for batch in batches:
        own = [len(items[index].input_ids) for index in batch]
        parameters = items[batch[0]].parameters
        assert all(items[index].parameters == parameters for index in batch)
        if len(batch) > 1:
            assert len(batch) * parameters.num_beams * (max(own) + 10) <= max_tokens
            assert len(batch) * max(own) <= MAX_PADDED_RATIO * sum(own)


def test_padding_is_on_the_right_and_masked() -> None:
    batch = collate([item(1), item(3)], pad_id=9)
    np.testing.assert_array_equal(batch.input_ids, [[1, 9, 9], [1, 2, 3]])
    np.testing.assert_array_equal(batch.attention_mask, [[1, 0, 0], [1, 1, 1]])
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64
