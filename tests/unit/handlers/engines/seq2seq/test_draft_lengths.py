"""The number of drafted tokens: it follows acceptance, the number of texts, and the measured times of steps."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from handlers.engines.seq2seq.decode_attention import DecodeAttention
from handlers.engines.seq2seq.draft_lengths import (
    InterpolatedTimes,
    StepTimes,
    choose_draft_lengths,
    measure_step_times,
)
from handlers.engines.seq2seq.step_kernels import load_step_kernels
from tests.unit.handlers.engines.seq2seq.test_speculative_search import create_network


def step_times(seconds: Mapping[int, float]) -> StepTimes:
    """Return times that depend only on the number of tokens."""
    return StepTimes(seconds, seconds)


FLAT = step_times({1: 2.0, 32: 2.0})
MEMORY_BOUND = step_times({1: 1.0, 8: 1.1, 32: 3.0})
COMPUTE_BOUND = step_times({1: 1.0, 32: 32.0})


def test_times_are_interpolated_and_extrapolated() -> None:
    times = InterpolatedTimes({4: 0.3, 1: 0.2, 8: 0.25, 16: 0.7})
    # A step with eight tokens cannot take less time than one with four.
    assert times.measured == pytest.approx({1: 1.0, 4: 1.5, 8: 1.5, 16: 3.5})
    assert [times[count] for count in (1, 2, 4, 6, 12, 16, 24)] == pytest.approx(
        [1.0, 7 / 6, 1.5, 1.5, 2.5, 3.5, 5.5]
    )


def test_time_of_more_tokens_is_added_to_that_of_the_rows() -> None:
    times = StepTimes({1: 2.0, 8: 9.0}, {1: 2.0, 4: 2.6, 8: 5.0})
    assert times.estimate(1, 4) == pytest.approx(1.3)
    assert times.estimate(4, 4) == pytest.approx(2.5)
    assert times.estimate(4, 8) == pytest.approx(2.5 + 2.5 - 1.3)


def test_batches_whose_rows_take_long_have_longer_drafts() -> None:
    by_tokens = {1: 1.0, 8: 1.5, 32: 6.0}
    short, long = (
        choose_draft_lengths([0.8] * 8, [10] * 8, StepTimes(by_rows, by_tokens))
        for by_rows in (by_tokens, {1: 1.0, 8: 3.0})
    )
    assert sum(short) < sum(long)


@pytest.mark.parametrize("num_rows", [1, 4, 32])
def test_all_tokens_are_drafted_if_they_take_no_time_and_none_if_each_takes_a_step(num_rows: int) -> None:
    acceptances, limits = [0.9] * num_rows, [10] * num_rows
    assert choose_draft_lengths(acceptances, limits, FLAT) == limits
    assert choose_draft_lengths(acceptances, limits, COMPUTE_BOUND) == [0] * num_rows


def test_length_rises_with_acceptance_and_falls_with_the_number_of_rows() -> None:
    lengths = [choose_draft_lengths([step / 20], [10], MEMORY_BOUND)[0] for step in range(21)]
    assert lengths == sorted(lengths)
    assert lengths[0] == 0 < lengths[-1]
    totals = [choose_draft_lengths([0.8] * rows, [10] * rows, MEMORY_BOUND)[0] for rows in (1, 4, 16, 64)]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > totals[-1] == 0


def test_rows_with_higher_acceptance_have_longer_drafts() -> None:
    lengths = choose_draft_lengths([0.1, 0.9, 0.5, 0.9], [10, 10, 10, 1], MEMORY_BOUND)
    assert lengths[0] <= lengths[2] < lengths[1]
    assert lengths[3] == 1


@given(
    rows=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 10)), min_size=1, max_size=3),
    slope=st.floats(0.001, 0.5),
)
def test_no_other_lengths_generate_more_tokens_per_second(
    rows: list[tuple[float, int]], slope: float
) -> None:
    acceptances, limits = [row[0] for row in rows], [row[1] for row in rows]
    times = step_times({1: 1.0, 32: 1 + 31 * slope})

    def speed(lengths: list[int]) -> float:
        expected = sum(
            sum(min(acceptance, 0.98) ** exponent for exponent in range(length + 1))
            for acceptance, length in zip(acceptances, lengths, strict=True)
        )
        return expected / times.estimate(len(lengths), sum(lengths) + len(lengths))

    lengths = choose_draft_lengths(acceptances, limits, times)
    assert all(length <= limit for length, limit in zip(lengths, limits, strict=True))
    for row in range(len(rows)):
        for length in range(limits[row] + 1):
            other = [*lengths[:row], length, *lengths[row + 1 :]]
            # Improbable tokens are not considered.
            assert speed(other) <= speed(lengths) * 1.02


@pytest.mark.parametrize("architecture", ["t5", "bart"])
@pytest.mark.parametrize("is_compiled", [False, True], ids=["torch", "compiled"])
def test_steps_of_a_network_are_measured(compiled_step: Path, architecture: str, is_compiled: bool) -> None:
    attention = DecodeAttention(load_step_kernels(compiled_step), 32) if is_compiled else None
    with torch.inference_mode():
        times = measure_step_times(create_network(architecture, 1), attention)
    for measured in (times.by_rows.measured, times.by_tokens.measured):
        assert list(measured) == [1, 2, 4, 8, 16]
        assert measured[1] == 1 <= measured[16]
