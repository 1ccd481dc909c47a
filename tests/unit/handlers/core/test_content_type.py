"""Content-Type headers as clients write them, and texts in the charsets that they name."""

import codecs

import pytest

from handlers.core.content_type import _CODECS, ContentType, decode_text, is_utf8
from handlers.core.errors import InvalidRequest, InvalidText


@pytest.mark.parametrize(
    ("header", "mime", "charset"),
    [
        ("", (), ""),
        ("text/plain", ("text/plain",), ""),
        ("TEXT/Plain ; Charset=UTF-8", ("text/plain",), "UTF-8"),
        ('text/plain; format=flowed; charset="Shift_JIS"', ("text/plain",), "Shift_JIS"),
        ("text/plain; charset='utf-8'", ("text/plain",), "utf-8"),
        ("text/plain; charset=", ("text/plain",), ""),
        ("application/json, application/json", ("application/json", "application/json"), ""),
        ("text/plain, text/plain;charset=latin1", ("text/plain", "text/plain"), "latin1"),
        ("; charset=latin1", (), "latin1"),
        (f"text/plain; charset*{'9' * 5000}=x", ("text/plain",), ""),
    ],
)
def test_headers(header: str, mime: tuple[str, ...], charset: str) -> None:
    assert ContentType.parse(header) == ContentType(mime, charset)


@pytest.mark.parametrize(
    "header",
    [
        "application/json",
        "text/json",
        "application/jsonlines",
        "application/x-ndjson",
        "application/vnd.api+json; charset=utf-8",
        "application/json, application/json",
        "json",
    ],
)
def test_json_in_its_spellings(header: str) -> None:
    assert ContentType.parse(header).is_json


def test_what_is_not_json() -> None:
    for header in ("", "text/plain", "image/jpeg", "multipart/form-data; boundary=json"):
        assert not ContentType.parse(header).is_json


@pytest.mark.parametrize("charset", sorted(_CODECS))
def test_every_charset_decodes_what_python_encodes(charset: str) -> None:
    assert codecs.lookup(charset).name == charset
    assert decode_text("Rain fell.".encode(charset), charset) == "Rain fell."


def test_a_byte_order_mark_is_no_text() -> None:
    for charset in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8"):
        marked = ("" if charset in ("utf-16", "utf-32") else "\ufeff") + "Rain"
        assert decode_text(marked.encode(charset), charset) == "Rain"


@pytest.mark.parametrize(
    "charset", ["rot13", "zip", "hex", "idna", "punycode", "unicode_escape", "nonsense", "a\0b"]
)
def test_what_is_no_charset_of_texts(charset: str) -> None:
    with pytest.raises(InvalidRequest, match="is not known; send the text in UTF-8"):
        decode_text(b"x", charset)


def test_bytes_of_another_charset_are_named() -> None:
    with pytest.raises(
        InvalidText, match="the text is not in the charset Shift_JIS that is declared: byte 1"
    ):
        decode_text(b"a\xff", "Shift_JIS")


def test_utf8_by_its_names() -> None:
    assert all(map(is_utf8, ("", "utf-8", "UTF8", "utf_8", "utf-8-sig")))
    assert not is_utf8("latin1")
