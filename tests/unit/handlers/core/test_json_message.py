"""JSON messages: strict parsing, fields, and errors that say what to change."""

from typing import Any

import pytest

from handlers.core.errors import InvalidRequest
from handlers.core.json_message import kind_of, only_fields, parameters_of, parse_json


def test_what_is_parsed() -> None:
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
        (b'{"a": NaN}', "the field 'x' is not valid JSON: NaN is not a number"),
        (b'{"a": 1, "a": 1}', "the name 'a' appears twice in one object"),
        (b"caf\xe9", "the field 'x' is not UTF-8, as JSON is: byte 3 cannot be read"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{", "is not valid JSON"),
    ],
)
def test_what_is_not_json_is_named(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_json(body, "the field 'x'")
    assert message in raised.value.message


def test_null_fields_are_absent_and_others_named() -> None:
    """Case 18."""
    assert only_fields({"a": 1, "b": None, "c": None}, ("a", "b"), ()) == {"a": 1}
    with pytest.raises(InvalidRequest, match="unknown field 'c'; the body has 'a' and 'b'"):
        only_fields({"c": 1}, ("a", "b"), ("d",))
    with pytest.raises(InvalidRequest, match="'d' is a parameter; it goes into the field 'parameters'"):
        only_fields({"d": 1}, ("a", "b"), ("d",))


def test_parameters_are_an_object() -> None:
    assert parameters_of({}) == {}
    assert parameters_of({"parameters": {"a": 1}}) == {"a": 1}
    with pytest.raises(InvalidRequest, match="'parameters' must be an object, not a string"):
        parameters_of({"parameters": '{"a": 1}'})


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
def test_kinds(value: Any, words: str) -> None:
    assert kind_of(value) == words
