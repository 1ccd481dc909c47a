"""Tests of parsing JSON messages strictly, selecting fields, and error messages."""

from typing import Any

import pytest

from handlers.core.errors import InvalidRequest
from handlers.core.json_message import get_parameters, json_type_name, parse_json, select_fields


def test_strict_json_is_parsed() -> None:
    for body in (
        b'{"a": [1]}',
        bytearray(b'{"a": [1]}'),
        '{"a": [1]}',
        b'\xef\xbb\xbf{"a": [1]}',
        {"a": [1]},
    ):
        assert parse_json(body) == {"a": [1]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"a": NaN}', "the field 'x' is not valid JSON: NaN is not a JSON number"),
        (b'{"a": 1, "a": 1}', "the name 'a' appears twice in one object"),
        (b"caf\xe9", "the field 'x' is not UTF-8, as JSON must be: byte 3 is invalid"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{", "is not valid JSON"),
    ],
)
def test_invalid_json_is_rejected(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_json(body, "the field 'x'")
    assert message in raised.value.message


def test_null_fields_are_dropped_and_unknown_fields_rejected() -> None:
    assert select_fields({"a": 1, "b": None, "c": None}, ("a", "b"), ()) == {"a": 1}
    with pytest.raises(InvalidRequest, match="unknown field 'c'; use the fields 'a' and 'b'"):
        select_fields({"c": 1}, ("a", "b"), ("d",))
    with pytest.raises(InvalidRequest, match="'d' is a parameter; send it in the field 'parameters'"):
        select_fields({"d": 1}, ("a", "b"), ("d",))


def test_parameters_must_be_an_object() -> None:
    assert get_parameters({}) == {}
    assert get_parameters({"parameters": {"a": 1}}) == {"a": 1}
    with pytest.raises(InvalidRequest, match="'parameters' must be an object, not a string"):
        get_parameters({"parameters": '{"a": 1}'})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "an object"),
        ([], "a list"),
        ("", "a string"),
        (True, "a boolean"),
        (None, "null"),
        (1.5, "a number"),
    ],
)
def test_json_types_are_named(value: Any, words: str) -> None:
    assert json_type_name(value) == words
