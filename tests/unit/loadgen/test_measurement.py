"""Percentiles, rates, medians and merged measurements."""

import math
from collections import Counter

import pytest

from torchserve_models.loadgen import (
    Measurement,
    median_summary,
    merge_measurements,
    percentile,
    relative_spread,
)


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50), (0.9, 90), (0.99, 99), (0.0, 1), (1.0, 100), (0.001, 1)]
)
def test_percentile_is_a_measured_value(share, value):
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, share) == value


def test_percentile_of_few_values():
    assert percentile([3.0], 0.99) == 3
    assert percentile([1.0, 2.0], 0.5) == 1
    assert math.isnan(percentile([], 0.5))


def test_summary_is_in_milliseconds_and_requests_per_second():
    measurement = Measurement(
        2.0, completed=10, latencies=[0.1] * 9 + [0.5], failures=[0.01], errors=Counter(x=1)
    )
    summary = measurement.summary()
    assert (summary.requests_per_second, summary.p50, summary.p99) == (5, 100, 500)
    assert (summary.errors, summary.error_count, summary.rejected_within) == ({"x": 1}, 1, 10)


def test_summary_has_tokens_per_second_and_time_per_token():
    parts = [
        Measurement(2.0, 1, [0.2], tokens=20, per_token=[0.01]),
        Measurement(2.0, 1, [0.9], tokens=30, per_token=[0.03]),
    ]
    summary = merge_measurements(parts).summary()
    assert (summary.tokens_per_second, summary.ms_per_token) == (25, 10)
    assert median_summary([summary, parts[1].summary(), summary]).tokens_per_second == 25


def test_missing_latency_is_null_in_json():
    values = Measurement(1.0).summary().as_json()
    assert values["requests_per_second"] == 0
    assert values["p50"] is None


def test_simultaneous_measurements_are_added_up():
    merged = merge_measurements(
        [
            Measurement(1.0, 2, [0.1, 0.2], cpu=0.1),
            Measurement(1.0, 1, [0.3], [0.9], Counter(busy=1), cpu=0.2),
        ]
    )
    assert (merged.seconds, merged.completed, sorted(merged.latencies)) == (1.0, 3, [0.1, 0.2, 0.3])
    assert merged.errors == {"busy": 1}
    assert merged.cpu == pytest.approx(0.3)


def test_median_summary_has_median_rates_and_all_errors():
    rounds = [
        Measurement(1.0, rate, [0.1], errors=Counter(busy=errors)).summary()
        for rate, errors in ((10, 0), (99, 1), (11, 2))
    ]
    summary = median_summary(rounds)
    assert summary.requests_per_second == 11
    assert summary.errors == {"busy": 3}
    assert str(summary) == "   11.0/s  p50   100.0 ms  p99   100.0 ms, 3 x busy"
    assert relative_spread(rounds) == 89 / 11
