"""Tests of parsing Content-Type headers and decoding texts from their charsets."""

import codecs

import pytest

from handlers.core.content_type import (
    _CODECS,
    ContentType,
    decode_text,
    header_parameter,
    is_utf8,
    needs_decoding,
)
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
        ("text/plain; charset=utf-8, text/plain; charset=UTF-8", ("text/plain", "text/plain"), "UTF-8"),
        ("text/plain; charset=latin1; charset=utf-8", ("text/plain",), "latin1, utf-8"),
        (f"text/plain; charset*{'9' * 5000}=x", ("text/plain",), ""),
        ("text/plain; charset*=utf-8''latin1", ("text/plain",), "latin1"),
        ("text/plain; charset*0=lat; charset*1=in1", ("text/plain",), "latin1"),
        ("text/plain; charset", ("text/plain",), ""),
    ],
)
def test_content_type_header_is_parsed(header: str, mime: tuple[str, ...], charset: str) -> None:
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
def test_json_media_types_are_recognized(header: str) -> None:
    assert ContentType.parse(header).is_json


def test_other_media_types_are_not_json() -> None:
    for header in ("", "text/plain", "image/jpeg", "multipart/form-data; boundary=json"):
        assert not ContentType.parse(header).is_json


@pytest.mark.parametrize("charset", sorted(_CODECS))
def test_text_in_every_charset_is_decoded(charset: str) -> None:
    assert codecs.lookup(charset).name == charset
    assert decode_text("Rain fell.".encode(charset), charset) == "Rain fell."


def test_byte_order_mark_is_removed() -> None:
    for charset in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8"):
        marked = ("" if charset in ("utf-16", "utf-32") else "\ufeff") + "Rain"
        assert decode_text(marked.encode(charset), charset) == "Rain"


@pytest.mark.parametrize(
    "charset", ["rot13", "zip", "hex", "idna", "punycode", "unicode_escape", "nonsense", "a\0b"]
)
def test_unknown_charset_is_rejected(charset: str) -> None:
    with pytest.raises(InvalidRequest, match="is not known; send the text in UTF-8"):
        decode_text(b"x", charset)


def test_bytes_invalid_in_charset_are_rejected() -> None:
    with pytest.raises(
        InvalidText, match=r"the text is not valid Shift_JIS, its declared charset \(byte 1\)"
    ):
        decode_text(b"a\xff", "Shift_JIS")


def test_several_charsets_are_rejected() -> None:
    with pytest.raises(InvalidRequest, match=r"names several charsets \(latin1, utf-8\); name one"):
        decode_text(b"Rain", "latin1, utf-8")
    assert decode_text("Café".encode(), "utf-8, UTF8") == "Café"  # one charset, spelled twice


@pytest.mark.parametrize("parameters", ["charset*=utf-8''a; charset*0=b", "boundary*=x; boundary*0=y"])
def test_malformed_numbered_parameters_are_ignored(parameters: str) -> None:
    ContentType.parse(f"text/plain; {parameters}")
    header_parameter("content-type", f"text/plain; {parameters}", "boundary")


def test_byte_order_mark_takes_precedence_over_declared_charset() -> None:
    """Browsers do the same, because the declared charset is often only a library's default."""
    for codec in ("utf-8-sig", "utf-16", "utf-32"):
        for charset in ("latin1", "utf-16be", "utf-8", "shift_jis"):
            assert decode_text("Rain fell on the café.".encode(codec), charset) == "Rain fell on the café."
    with pytest.raises(InvalidText, match="begins with the byte order mark of UTF-16 but is UTF-8"):
        decode_text(b"\xff\xfe neither UTF-16 nor UTF-8", "")
    assert needs_decoding("Rain".encode("utf-16"), "")
    assert not needs_decoding("Rain".encode("utf-8-sig"), "")


@pytest.mark.parametrize(
    "text", ["Rain fell.", "In 2000, 1000000 people left.", "橋が開く。\n", "日本　一", "中国，一二三"]
)
@pytest.mark.parametrize("charset", ["utf-16", "utf-32"])
def test_byte_order_without_mark_is_detected(text: str, charset: str) -> None:
    """.NET clients send UTF-16 without a mark and without a declared byte order."""
    for order in ("-le", "-be"):
        assert decode_text(text.encode(charset + order), charset) == text


def test_ambiguous_byte_order_is_rejected() -> None:
    with pytest.raises(InvalidText, match="does not define the byte order; declare utf-16le or utf-16be"):
        decode_text("日本一".encode("utf-16-le"), "utf-16")


@pytest.mark.parametrize(
    "charset", ["utf-16", "utf-16le", "utf-32be", "latin1", "windows-1252", "iso-8859-15"]
)
def test_utf8_declared_as_another_charset_is_rejected(charset: str) -> None:
    for text in ("Rain fell on the café.", "橋 rain"):
        with pytest.raises(InvalidText, match=f"the text is UTF-8, but its Content-Type declares {charset}"):
            decode_text(text.encode(), charset)


def test_ascii_is_decoded_in_any_ascii_compatible_charset() -> None:
    for charset in ("latin1", "windows-1252", "shift_jis"):
        assert decode_text(b"Rain fell.", charset) == "Rain fell."


def test_utf8_is_recognized_by_all_its_names() -> None:
    assert all(map(is_utf8, ("", "utf-8", "UTF8", "utf_8", "utf-8-sig")))
    assert not is_utf8("latin1")
