"""Property tests of parameters: values within the range are unchanged, all others raise InvalidParameter."""

import math
from contextlib import suppress

import hypothesis
import pytest
from hypothesis import strategies as st

from handlers.core.errors import InvalidParameter
from handlers.core.parameters import Parameter, parse_parameters

BOUNDS = st.tuples(st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9)).filter(
    lambda bounds: None in bounds or bounds[0] <= bounds[1]
)
NUMBERS = st.integers(-12, 12) | st.floats(-12, 12)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=6), values, max_size=3),
    max_leaves=8,
)
ALLOWED = (
    Parameter("top_k", int, low=1, high=10),
    Parameter("length_penalty", float, low=-2, high=2),
    Parameter("early_stopping", bool, choices=("never",)),
    Parameter("function", str, choices=("softmax", "none")),
)


def in_range(value, low, high):
    return (low is None or value >= low) and (high is None or value <= high)


@hypothesis.given(st.sampled_from([int, float]), BOUNDS, NUMBERS)
def test_number_is_accepted_exactly_if_it_is_in_range(kind, bounds, value):
    hypothesis.assume(kind is float or isinstance(value, int))
    parameter = Parameter("n", kind, *bounds)
    if in_range(value, *bounds):
        result = parse_parameters({"n": value}, [parameter])["n"]
        assert result == value
        assert type(result) is kind
    else:
        with pytest.raises(InvalidParameter, match=r"'n' must be an? .*, not "):
            parse_parameters({"n": value}, [parameter])


@hypothesis.given(
    st.floats().filter(lambda value: not math.isfinite(value)) | st.integers().map(lambda n: 10**400 + n * n)
)
def test_number_that_is_not_finite_is_rejected(value):
    with pytest.raises(InvalidParameter):
        parse_parameters({"n": value}, [Parameter("n", float)])


@hypothesis.given(
    st.dictionaries(
        st.sampled_from([parameter.name for parameter in ALLOWED]) | st.text(max_size=80), JSON_VALUES
    )
)
def test_any_json_is_parsed_or_rejected_with_a_short_message(raw):
    parsed, message = None, "rejected"
    try:
        parsed = parse_parameters(raw, ALLOWED)
    except InvalidParameter as error:
        message = error.message
    assert parsed in (None, {name: value for name, value in raw.items() if value is not None})
    assert 0 < len(message) < 250
    assert message.isprintable()


@hypothesis.given(st.sampled_from(ALLOWED), JSON_VALUES)
def test_accepted_value_has_the_type_of_its_parameter(parameter, value):
    with suppress(InvalidParameter):
        result = parameter.check(value)
        assert type(result) is parameter.kind
        assert not parameter.choices or result in parameter.choices
