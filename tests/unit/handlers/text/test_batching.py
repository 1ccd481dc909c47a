"""Batches hold one way to search, bounded padding and bounded size, and every item once."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.text.batching import MAX_PADDED_RATIO, plan
from handlers.text.generation import GenerationParameters
from handlers.text.types import TextItem

GREEDY = GenerationParameters(max_new_tokens=10)
BEAMS = GenerationParameters(max_new_tokens=10, num_beams=4)


def item(length: int, parameters: GenerationParameters = GREEDY) -> TextItem:
    return TextItem(tuple(range(1, length + 1)), False, parameters)


def test_one_way_to_search_shares_a_batch() -> None:
    items = [item(5), item(5, BEAMS), item(6), item(7, BEAMS)]
    assert sorted(map(sorted, plan(items, 10_000))) == [[0, 2], [1, 3]]


def test_lengths_may_differ_in_a_batch() -> None:
    others = [replace(GREEDY, max_new_tokens=longest, min_new_tokens=3) for longest in (5, 20)]
    assert plan([item(5), *(item(5, own) for own in others)], 10_000) == [[0, 1, 2]]


def test_long_and_short_texts_are_kept_apart() -> None:
    items = [item(100), *[item(2)] * 5, item(90)]
    assert sorted(map(sorted, plan(items, 10_000))) == [[0, 6], [1, 2, 3, 4, 5]]


def test_the_size_counts_beams_and_the_summary() -> None:
    items = [item(10, BEAMS)] * 4
    assert [len(batch) for batch in plan(items, 2 * (10 + 4 * 10))] == [2, 2]


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
            assert len(batch) * (max(own) + parameters.num_beams * 10) <= max_tokens
            assert len(batch) * max(own) <= MAX_PADDED_RATIO * sum(own)
