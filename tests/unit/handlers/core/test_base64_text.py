"""Tests of base64 decoding in the variants that clients send."""

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
def test_base64_variants_are_decoded(text: str) -> None:
    assert decode_base64(text) == DATA


def test_empty_text_decodes_to_no_bytes() -> None:
    assert decode_base64("") == decode_base64("data:;base64,") == b""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("+", " "), "contains spaces; in a form, encode '\\+' as %2B"),
        (TEXT[:76] + " " + TEXT[77:], "contains spaces"),
        ("data:image/png,abc", "a data URL without base64"),
        ("https://example.com/a.png", "a URL, and URLs are not downloaded"),
        ("photo.jpg", "is not base64"),
        (f"b'{TEXT}'", "is not base64"),
        (TEXT + "==", "is not base64"),
        ("+_" + TEXT[2:], "is not base64"),
        ("aGkaG", "is not base64"),
        ("café", "is not base64"),
    ],
)
def test_invalid_base64_error_names_the_problem(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_base64(text)
