"""Planning of batches: equal search parameters, limited padding and limited size."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.engines.seq2seq.generation_types import GenerationParameters
from handlers.text.batching import MAX_PADDED_RATIO, plan_batches
from handlers.text.types import TextItem

GREEDY = GenerationParameters(max_new_tokens=10)
BEAMS = GenerationParameters(max_new_tokens=10, num_beams=4)


def item(length: int, parameters: GenerationParameters = GREEDY) -> TextItem:
    return TextItem(tuple(range(1, length + 1)), False, parameters)


def test_items_with_equal_search_parameters_share_a_batch() -> None:
    items = [item(5), item(5, BEAMS), item(6), item(7, BEAMS)]
    assert sorted(map(sorted, plan_batches(items, 10_000))) == [[0, 2], [1, 3]]


def test_items_with_different_lengths_share_a_batch() -> None:
    others = [replace(GREEDY, max_new_tokens=max_new_tokens, min_new_tokens=3) for max_new_tokens in (5, 20)]
    assert plan_batches([item(5), *(item(5, parameters) for parameters in others)], 10_000) == [[0, 1, 2]]


def test_long_and_short_texts_are_in_separate_batches() -> None:
    items = [item(100), *[item(2)] * 5, item(90)]
    assert sorted(map(sorted, plan_batches(items, 10_000))) == [[0, 6], [1, 2, 3, 4, 5]]


def test_size_of_a_batch_includes_beams_and_summaries() -> None:
    items = [item(10, BEAMS)] * 4
    assert [len(batch) for batch in plan_batches(items, 2 * (10 + 4 * 10))] == [2, 2]


def test_item_above_the_limit_has_a_separate_batch() -> None:
    assert sorted(plan_batches([item(500), item(400)], 100)) == [[0], [1]]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=20),
    beams=st.lists(st.booleans(), min_size=20, max_size=20),
    max_tokens=st.integers(1, 2000),
)
def test_every_item_is_in_one_batch_within_the_limits(
    lengths: list[int], beams: list[bool], max_tokens: int
) -> None:
    items = [item(length, BEAMS if beam else GREEDY) for length, beam in zip(lengths, beams, strict=False)]
    batches = plan_batches(items, max_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(items)))
    for batch in batches:
        lengths_in_batch = [len(items[index].input_ids) for index in batch]
        parameters = items[batch[0]].parameters
        assert all(items[index].parameters == parameters for index in batch)
        if len(batch) > 1:
            assert len(batch) * (max(lengths_in_batch) + parameters.num_beams * 10) <= max_tokens
            assert len(batch) * max(lengths_in_batch) <= MAX_PADDED_RATIO * sum(lengths_in_batch)
