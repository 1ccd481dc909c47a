"""A request's parameters: ranges, the model's defaults, and lengths given in two ways."""

import math
from dataclasses import replace
from typing import Any

import pytest

from handlers.core.errors import InvalidParameter
from handlers.core.parameters import parse_parameters
from handlers.text.generation import GenerationParameters
from handlers.text.parameters import GenerationLimits, resolve, truncates

LIMITS = GenerationLimits(max_new_tokens=100, max_num_beams=6)
DEFAULTS = GenerationParameters(
    max_new_tokens=60, min_new_tokens=20, num_beams=4, length_penalty=2.0, early_stopping=True
)


def resolved(raw: dict[str, Any], defaults: GenerationParameters = DEFAULTS) -> GenerationParameters:
    return resolve(parse_parameters(raw, LIMITS.parameters()), defaults)


@pytest.mark.parametrize(
    ("raw", "longest", "shortest"),
    [
        ({}, 60, 20),
        ({"max_length": 31}, 30, 20),
        ({"max_new_tokens": 30}, 30, 20),
        ({"max_new_tokens": 30, "max_length": 90}, 30, 20),
        ({"max_length": None}, 60, 20),
        ({"min_length": 11}, 60, 10),
        ({"min_length": 0}, 60, 0),
        ({"min_new_tokens": 5, "min_length": 50}, 60, 5),
        ({"min_new_tokens": 30, "max_new_tokens": 30}, 30, 30),
        ({"min_length": 31, "max_length": 31}, 30, 30),
        ({"max_new_tokens": 5}, 5, 5),
        ({"max_length": 2}, 1, 1),
    ],
)
def test_lengths_count_new_tokens(raw: dict[str, Any], longest: int, shortest: int) -> None:
    parameters = resolved(raw)
    assert (parameters.max_new_tokens, parameters.min_new_tokens) == (longest, shortest)


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        ({"min_length": 50, "max_length": 40}, ["'min_length' (50)", "'max_length' (40)"]),
        ({"min_new_tokens": 41, "max_new_tokens": 40}, ["'min_new_tokens' (41)", "'max_new_tokens' (40)"]),
        ({"min_length": 50, "max_new_tokens": 40}, ["'min_length' (50)", "'max_new_tokens' (40)"]),
        ({"min_length": 80}, ["'min_length' (80)", "'max_new_tokens' (60, the model's default)"]),
    ],
)
def test_a_minimum_above_the_maximum_names_both(raw: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        resolved(raw)
    assert all(name in caught.value.message for name in names)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num_beams", -1, "from 1 to 6"),
        ("num_beams", 7, "from 1 to 6"),
        ("num_beams", True, "an integer"),
        ("num_beams", 2.0, "an integer"),
        ("max_length", 1e9, "from 2 to 101"),
        ("max_length", 10**9, "from 2 to 101"),
        ("max_length", 1, "from 2 to 101"),
        ("max_new_tokens", 0, "from 1 to 100"),
        ("max_new_tokens", "30", "an integer"),
        ("min_length", -1, "from 0 to 101"),
        ("min_new_tokens", 101, "from 0 to 100"),
        ("length_penalty", math.nan, "a number from -2 to 5"),
        ("length_penalty", math.inf, "a number from -2 to 5"),
        ("length_penalty", 5.5, "a number from -2 to 5"),
        ("no_repeat_ngram_size", -1, "from 0 to 100"),
        ("early_stopping", "always", "true or false or 'never'"),
        ("early_stopping", 1, "true or false or 'never'"),
        ("truncation", "only_third", "'only_first'"),
        ("truncation", 0, "true or false"),
        ("clean_up_tokenization_spaces", "yes", "true or false"),
        ("temperature", 0.7, "num_beams"),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_range(name: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        resolved({name: value})
    assert name in caught.value.message
    assert words in caught.value.message


def test_a_request_goes_before_the_models_defaults() -> None:
    raw = {"num_beams": 2, "length_penalty": 0, "no_repeat_ngram_size": 3, "early_stopping": "never"}
    expected = GenerationParameters(60, 20, 2, 0.0, 3, "never")
    assert resolved(raw) == expected


def test_what_has_no_effect_does_not_keep_items_apart() -> None:
    greedy = [resolved({"num_beams": 1, "length_penalty": penalty}) for penalty in (0.5, 2.0)]
    assert greedy[0] == greedy[1]
    assert resolved({"length_penalty": 0.5}) != resolved({"length_penalty": 1.5})


def test_defaults_are_cut_to_the_servers_limits() -> None:
    generous = replace(DEFAULTS, max_new_tokens=500, min_new_tokens=200, num_beams=10)
    assert LIMITS.clamp(generous) == replace(DEFAULTS, max_new_tokens=100, min_new_tokens=100, num_beams=6)
    assert LIMITS.clamp(DEFAULTS) == DEFAULTS


@pytest.mark.parametrize(
    ("value", "cuts"),
    [(True, True), ("longest_first", True), ("only_first", True), (False, False), ("do_not_truncate", False)],
)
def test_truncation_is_said_by_bool_or_by_strategy(value: bool | str, cuts: bool) -> None:
    assert truncates(parse_parameters({"truncation": value}, LIMITS.parameters())) is cuts
    assert truncates({})
