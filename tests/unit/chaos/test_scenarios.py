"""Tests of scenario results and of the latency check of the well-behaved client."""

import json
import math

import pytest

from tests.chaos.scenarios.base import Latencies, ScenarioResult, compare, table


def test_value_beyond_its_limit_fails():
    result = ScenarioResult("load")
    result.at_most("memory", 5.0, 10.0, " MB")
    result.at_least("goodput", 0.9, 0.8)
    result.holds("alive", True)
    assert result.is_ok
    result.at_most("time", 11.0, 10.0, " s")
    assert not result.is_ok
    assert "FAIL time: 11 s (<= 10 s)" in table(result)
    assert json.loads(json.dumps(result.as_json()))["passed"] is False


@pytest.mark.parametrize("check", ["at_most", "at_least"])
def test_missing_measurement_fails(check):
    result = ScenarioResult("load")
    getattr(result, check)("latency", math.nan, 1.0)
    assert not result.is_ok


@pytest.mark.parametrize(
    ("usual", "now", "failures", "is_ok"),
    [
        (100.0, 190.0, (), True),
        (100.0, 250.0, (), False),
        (5.0, 20.0, (), True),
        (100.0, 100.0, ("lost: broken",), False),
        (100.0, math.nan, (), False),
    ],
)
def test_slow_or_failed_requests_of_the_well_behaved_client_fail(usual, now, failures, is_ok):
    result = ScenarioResult("load")
    compare(result, Latencies((usual,) * 9, ()), Latencies(() if math.isnan(now) else (now,) * 9, failures))
    assert result.is_ok is is_ok
