"""Results of scenarios and the comparison of a well-behaved client's latencies."""

import json
import math

import pytest

from tests.chaos.scenarios.base import Latencies, Result, compare, table


def test_a_value_beyond_its_bar_fails():
    result = Result("load")
    result.at_most("memory", 5.0, 10.0, " MB")
    result.at_least("goodput", 0.9, 0.8)
    result.holds("alive", True)
    assert result.passed
    result.at_most("time", 11.0, 10.0, " s")
    assert not result.passed
    assert "FAIL time: 11 s (<= 10 s)" in table(result)
    assert json.loads(json.dumps(result.as_json()))["passed"] is False


@pytest.mark.parametrize("check", ["at_most", "at_least"])
def test_what_was_not_measured_fails(check):
    result = Result("load")
    getattr(result, check)("latency", math.nan, 1.0)
    assert not result.passed


@pytest.mark.parametrize(
    ("usual", "now", "failures", "passed"),
    [
        (100.0, 190.0, (), True),
        (100.0, 250.0, (), False),
        (5.0, 20.0, (), True),
        (100.0, 100.0, ("lost: broken",), False),
        (100.0, math.nan, (), False),
    ],
)
def test_the_well_behaved_client(usual, now, failures, passed):
    result = Result("load")
    compare(result, Latencies((usual,) * 9, ()), Latencies(() if math.isnan(now) else (now,) * 9, failures))
    assert result.passed is passed
