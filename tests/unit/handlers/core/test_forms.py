"""Tests of urlencoded forms that TorchServe has parsed: complete forms are accepted, truncated ones rejected."""

from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from handlers.core.errors import InvalidRequest
from handlers.core.forms import check_complete_form

VALUES = [
    "Rain fell.",
    "A café; 100 % of it & more = £3,400 (or so)!\r\nThe end~*'",
    "",
    "+" * 10,
    "a" * 1000,
    "橋",
]
ENCODERS: list[Callable[[str], str]] = [
    quote,
    quote_plus,
    lambda text: quote(text, safe="!~*'()"),  # encodeURIComponent
    lambda text: quote_plus(text, safe="*"),  # browsers, URLSearchParams
    lambda text: quote(text, safe=" ;,!~*'()=£é橋"),  # by hand
]


@pytest.mark.parametrize("encode", ENCODERS, ids=range(len(ENCODERS)))
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_complete_form_is_accepted(value: str, encode: Callable[[str], str]) -> None:
    sent = f"text={encode(value)}&num_beams=2"
    fields = {"text": bytearray(value.encode()), "num_beams": bytearray(b"2")}
    check_complete_form(fields, str(len(sent.encode())))


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ("text=AT&T rose.", {"text": b"AT"}),
        ("text=Shares of AT&T rose on Monday, the paper said.", {"text": b"Shares of AT"}),
        ("text=Rain fell.\nSun shone.", {"text": b"Rain fell."}),
        ("text=Rain! Rain! Rain!\nSun shone.", {"text": b"Rain! Rain! Rain!"}),
        ("text=caf\u00e9s\nin sun.", {"text": "caf\u00e9s".encode()}),
        ('{"inputs": "Rain fell."}', {}),
        ('{"inputs": "Fish &text=chips"}', {'{"inputs": "Fish': b"", "text": b'chips"}'}),
        ("Rain fell.", {}),
    ],
)
def test_form_that_torchserve_truncated_is_rejected(sent: str, fields: dict[str, bytes]) -> None:
    with pytest.raises(InvalidRequest, match="the body is not a complete form"):
        check_complete_form(fields, str(len(sent.encode())))


def test_form_with_final_line_break_is_accepted() -> None:
    check_complete_form({"text": b"Rain fell."}, str(len("text=Rain fell.\n")))


def test_form_without_length_is_accepted() -> None:
    for length in ("", "many", "9" * 20):
        check_complete_form({"text": b"x"}, length)
