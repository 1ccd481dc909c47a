"""Percentiles, medians, joined parts."""

import math
from collections import Counter

import pytest

from benchmarks.outcomes import Outcome, joined, median, percentile


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50), (0.9, 90), (0.99, 99), (0.0, 1), (1.0, 100), (0.001, 1)]
)
def test_percentiles_are_values_that_occurred(share, value):
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, share) == value


def test_percentiles_of_little():
    assert percentile([3.0], 0.99) == 3
    assert percentile([1.0, 2.0], 0.5) == 1
    assert math.isnan(percentile([], 0.5))


def test_a_summary_is_in_milliseconds_and_requests_a_second():
    outcome = Outcome(2.0, completed=10, latencies=[0.1] * 9 + [0.5], failures=[0.01], errors=Counter(x=1))
    summary = outcome.summary()
    assert (summary.requests_per_second, summary.p50, summary.p99) == (5, 100, 500)
    assert (summary.errors, summary.error_count, summary.rejected_within) == ({"x": 1}, 1, 10)


def test_tokens_are_counted_in_a_second_and_timed_one_by_one():
    parts = [
        Outcome(2.0, 1, [0.2], tokens=20, per_token=[0.01]),
        Outcome(2.0, 1, [0.9], tokens=30, per_token=[0.03]),
    ]
    summary = joined(parts).summary()
    assert (summary.tokens_per_second, summary.ms_per_token) == (25, 10)
    assert median([summary, parts[1].summary(), summary]).tokens_per_second == 25


def test_nothing_answered_is_null_in_json():
    found = Outcome(1.0).summary().as_json()
    assert found["requests_per_second"] == 0
    assert found["p50"] is None


def test_parts_that_ran_side_by_side_add_up():
    whole = joined(
        [
            Outcome(1.0, 2, [0.1, 0.2], cpu=0.1),
            Outcome(1.0, 1, [0.3], [0.9], Counter(busy=1), cpu=0.2),
        ]
    )
    assert (whole.seconds, whole.completed, sorted(whole.latencies)) == (1.0, 3, [0.1, 0.2, 0.3])
    assert whole.errors == {"busy": 1}
    assert whole.cpu == pytest.approx(0.3)


def test_the_median_round_decides_but_every_error_counts():
    rounds = [
        Outcome(1.0, rate, [0.1], errors=Counter(busy=errors)).summary()
        for rate, errors in ((10, 0), (99, 1), (11, 2))
    ]
    summary = median(rounds)
    assert summary.requests_per_second == 11
    assert summary.errors == {"busy": 3}
