"""Urlencoded forms that TorchServe read itself: whole ones pass as every encoder writes them, others are refused."""

from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from handlers.core.errors import InvalidRequest
from handlers.core.forms import check_whole

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
def test_whole_forms(value: str, encode: Callable[[str], str]) -> None:
    sent = f"text={encode(value)}&num_beams=2"
    fields = {"text": bytearray(value.encode()), "num_beams": bytearray(b"2")}
    check_whole(fields, str(len(sent.encode())))


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
def test_forms_of_which_torchserve_drops_a_part(sent: str, fields: dict[str, bytes]) -> None:
    """Case 4."""
    with pytest.raises(InvalidRequest, match="could not read the whole body as the form"):
        check_whole(fields, str(len(sent.encode())))


def test_a_line_break_at_the_end_is_no_loss() -> None:
    check_whole({"text": b"Rain fell."}, str(len("text=Rain fell.\n")))


def test_without_a_length_nothing_is_known() -> None:
    for length in ("", "many", "9" * 20):
        check_whole({"text": b"x"}, length)
