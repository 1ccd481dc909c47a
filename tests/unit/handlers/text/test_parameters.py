"""Generation parameters of a request: ranges, the model's defaults, and the two forms of lengths."""

import math
from dataclasses import replace
from typing import Any

import pytest

from handlers.core.errors import InvalidParameter
from handlers.core.parameters import parse_parameters
from handlers.engines.seq2seq.generation_types import GenerationParameters
from handlers.text.parameters import GenerationLimits, resolve_parameters, should_truncate

LIMITS = GenerationLimits(max_new_tokens=100, max_num_beams=6)
DEFAULTS = GenerationParameters(
    max_new_tokens=60, min_new_tokens=20, num_beams=4, length_penalty=2.0, early_stopping=True
)


def parse_and_resolve(raw: dict[str, Any], defaults: GenerationParameters = DEFAULTS) -> GenerationParameters:
    return resolve_parameters(parse_parameters(raw, LIMITS.parameters()), defaults)


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
    parameters = parse_and_resolve(raw)
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
def test_minimum_above_the_maximum_is_rejected_with_both_names(raw: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_and_resolve(raw)
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
def test_value_out_of_range_is_rejected_with_the_range(name: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_and_resolve({name: value})
    assert name in caught.value.message
    assert words in caught.value.message


def test_request_overrides_the_models_defaults() -> None:
    raw = {"num_beams": 2, "length_penalty": 0, "no_repeat_ngram_size": 3, "early_stopping": "never"}
    expected = GenerationParameters(60, 20, 2, 0.0, 3, "never")
    assert parse_and_resolve(raw) == expected


def test_parameters_without_effect_are_reset() -> None:
    greedy = [parse_and_resolve({"num_beams": 1, "length_penalty": penalty}) for penalty in (0.5, 2.0)]
    assert greedy[0] == greedy[1]
    assert parse_and_resolve({"length_penalty": 0.5}) != parse_and_resolve({"length_penalty": 1.5})


def test_defaults_are_reduced_to_the_servers_limits() -> None:
    generous = replace(DEFAULTS, max_new_tokens=500, min_new_tokens=200, num_beams=10)
    assert LIMITS.clamp(generous) == replace(DEFAULTS, max_new_tokens=100, min_new_tokens=100, num_beams=6)
    assert LIMITS.clamp(DEFAULTS) == DEFAULTS


@pytest.mark.parametrize(
    ("value", "is_truncated"),
    [(True, True), ("longest_first", True), ("only_first", True), (False, False), ("do_not_truncate", False)],
)
def test_truncation_can_be_a_bool_or_a_strategy(value: bool | str, is_truncated: bool) -> None:
    assert should_truncate(parse_parameters({"truncation": value}, LIMITS.parameters())) is is_truncated
    assert should_truncate({})
