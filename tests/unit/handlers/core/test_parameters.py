"""Tests of parameters: types, ranges and error messages."""

import math

import pytest

from handlers.core.errors import InvalidParameter
from handlers.core.parameters import Parameter, parse_parameters

TOP_K = Parameter("top_k", int, low=1, high=10)
PENALTY = Parameter("length_penalty", float, low=-2, high=2)
STOPPING = Parameter("early_stopping", bool, choices=("never",))
FUNCTION = Parameter("function", str, choices=("softmax", "none"))
ALL = (TOP_K, PENALTY, STOPPING, FUNCTION)


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("top_k", 1, 1),
        ("top_k", 10, 10),
        ("length_penalty", 1, 1.0),
        ("length_penalty", -0.5, -0.5),
        ("early_stopping", True, True),
        ("early_stopping", "never", "never"),
        ("function", "none", "none"),
    ],
)
def test_valid_values_are_accepted(name, value, parsed):
    result = parse_parameters({name: value}, ALL)[name]
    assert result == parsed
    assert type(result) is type(parsed)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("top_k", 0, "an integer from 1 to 10"),
        ("top_k", 11, "an integer from 1 to 10"),
        ("top_k", 10**400, "an integer from 1 to 10"),
        ("top_k", 3.0, "an integer from 1 to 10"),
        ("top_k", True, "an integer from 1 to 10"),
        ("top_k", "3", "an integer from 1 to 10"),
        ("top_k", [3], "an integer from 1 to 10"),
        ("length_penalty", math.nan, "a number from -2 to 2"),
        ("length_penalty", math.inf, "a number from -2 to 2"),
        ("length_penalty", 10**400, "a number from -2 to 2"),
        ("length_penalty", True, "a number from -2 to 2"),
        ("early_stopping", 1, "true or false or 'never'"),
        ("early_stopping", "always", "true or false or 'never'"),
        ("function", "relu", "'softmax' or 'none'"),
    ],
)
def test_invalid_values_are_rejected_with_name_and_range(name, value, expected):
    with pytest.raises(InvalidParameter) as caught:
        parse_parameters({name: value}, ALL)
    assert f"'{name}' must be {expected}, not " in caught.value.message
    assert len(caught.value.message) < 200


def test_unknown_parameter_is_rejected_with_the_known_ones():
    with pytest.raises(
        InvalidParameter, match=r"unknown parameter 'topk'.*early_stopping, function, length_penalty, top_k"
    ):
        parse_parameters({"topk": 3}, ALL)


def test_null_parameter_is_unset():
    assert parse_parameters({"top_k": None}, ALL) == {}
