"""Drafts from the source: matches and acceptance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.engines.seq2seq.prompt_lookup import MIN_MATCH, PromptLookup

VOCAB_SIZE = 200
SOURCE = [5, 6, 7, 8, 9, 3, 6, 7, 4, 2, 1]


def find(lookup: PromptLookup, max_tokens: int = 2) -> list[int]:
    return list(lookup.find_next(max_tokens))


def test_longest_match_is_continued() -> None:
    lookup = PromptLookup(SOURCE, False, VOCAB_SIZE)
    assert find(lookup) == []
    lookup.extend([6])
    assert find(lookup) == []  # a single token matches by chance
    lookup.extend([7])
    assert find(lookup) == [8, 9]  # the first of two equally long matches
    lookup.extend([8, 3, 6, 7])
    assert find(lookup) == [4, 2]
    lookup.extend([4, 2])
    assert find(lookup) == [1]


def test_output_is_searched_on_request() -> None:
    for search_output, expected in ((True, [22, 23]), (False, [])):
        lookup = PromptLookup(SOURCE, search_output, VOCAB_SIZE)
        lookup.extend([20, 21, 22, 23, 20, 21])
        assert find(lookup) == expected


def test_draft_ends_with_the_source() -> None:
    lookup = PromptLookup(SOURCE, False, VOCAB_SIZE)
    lookup.extend([2, 1])
    assert find(lookup) == []
    lookup.extend([11])
    assert find(lookup) == []


def test_draft_ends_before_a_token_beyond_the_vocabulary() -> None:
    lookup = PromptLookup(SOURCE, False, 9)
    lookup.extend([6, 7])
    assert find(lookup, 3) == [8]
    lookup.extend([8])
    assert find(lookup, 3) == []


def test_acceptance_follows_what_is_found_even_if_nothing_is_drafted() -> None:
    lookup = PromptLookup(list(range(100, 200)), False, VOCAB_SIZE)
    acceptances = []
    for token in range(100, 140, 2):  # matches of two tokens, but never a third one
        lookup.extend([token, token + 1])
        assert find(lookup) == [token + 2, token + 3]
        lookup.extend([99])
        acceptances.append(lookup.acceptance)
    assert acceptances == sorted(acceptances, reverse=True)
    assert acceptances[-1] < 0.05
    lookup.extend([140])
    for token in range(141, 160):
        lookup.extend([token])
        assert find(lookup, 0) == []
    assert lookup.acceptance > 0.9


@pytest.mark.parametrize("source", [[5] * 1000, [5, 6] * 500, []], ids=["one token", "two tokens", "output"])
def test_few_positions_of_repeated_tokens_are_compared(source: list[int]) -> None:
    lookup = PromptLookup(source, True, VOCAB_SIZE)
    lookup.extend(source[:100] or [5] * 1000)
    assert find(lookup, 1) == [5]
    assert max(map(len, lookup._positions.values())) == 64


@given(
    source=st.lists(st.integers(0, 4), max_size=30),
    output=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    max_tokens=st.integers(1, 5),
)
def test_draft_follows_a_longest_match(source: list[int], output: list[int], max_tokens: int) -> None:
    lookup = PromptLookup(source, False, VOCAB_SIZE)
    lookup.extend(output)
    draft = find(lookup, max_tokens)
    lengths = {end: match_length(source[:end], output) for end in range(len(source) + 1)}
    longest = max(lengths.values())
    ends = [end for end, length in lengths.items() if length == longest] if longest >= MIN_MATCH else []
    assert draft in [source[end : end + max_tokens] for end in ends] or (draft, ends) == ([], [])


def match_length(before: list[int], output: list[int]) -> int:
    length = 0
    while length < min(len(before), len(output)) and before[-1 - length] == output[-1 - length]:
        length += 1
    return length
