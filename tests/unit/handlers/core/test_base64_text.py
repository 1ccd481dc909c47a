"""Base64 in the ways in which clients write it."""

import base64
import textwrap

import pytest

from handlers.core.base64_text import decode_base64

DATA = bytes(range(256)) + b"\xfb\xef\xff\xfe"
TEXT = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(DATA).decode(),
        base64.urlsafe_b64encode(DATA).decode().rstrip("="),
        base64.encodebytes(DATA).decode(),
        "\r\n".join(textwrap.wrap(TEXT, 64)),
        " ".join(textwrap.wrap(TEXT, 76)),
        "\n  ".join(textwrap.wrap(TEXT, 80)),
        " \r\n".join(textwrap.wrap(TEXT, 80)),
        f"  {TEXT}\n",
        f"data:image/png;base64,{TEXT}",
        f"DATA:image/PNG;charset=utf-8;name=a.png;BASE64, {TEXT}",
        f"data:;base64,{TEXT}",
    ],
)
def test_spellings(text: str) -> None:
    assert decode_base64(text) == DATA


def test_nothing() -> None:
    assert decode_base64("") == decode_base64("data:;base64,") == b""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("+", " "), "spaces in it; in a form, write '\\+' as %2B"),
        (TEXT[:76] + " " + TEXT[77:], "spaces in it"),
        ("data:image/png,abc", "a data URL that is not in base64"),
        ("https://example.com/a.png", "an address, which is not fetched"),
        ("photo.jpg", "is not base64"),
        (f"b'{TEXT}'", "is not base64"),
        (TEXT + "==", "is not base64"),
        ("+_" + TEXT[2:], "is not base64"),
        ("aGkaG", "is not base64"),
        ("café", "is not base64"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_base64(text)
