"""Content-Type headers as clients write them, and texts in the charsets that they name."""

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
    """Case 2."""
    assert ContentType.parse(header).is_json


def test_what_is_not_json() -> None:
    for header in ("", "text/plain", "image/jpeg", "multipart/form-data; boundary=json"):
        assert not ContentType.parse(header).is_json


@pytest.mark.parametrize("charset", sorted(_CODECS))
def test_every_charset_decodes_what_python_encodes(charset: str) -> None:
    """Case 5."""
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
    """Case 5."""
    with pytest.raises(InvalidRequest, match="is not known; send the text in UTF-8"):
        decode_text(b"x", charset)


def test_bytes_of_another_charset_are_named() -> None:
    with pytest.raises(
        InvalidText, match="the text is not in the charset Shift_JIS that is declared: byte 1"
    ):
        decode_text(b"a\xff", "Shift_JIS")


def test_several_charsets_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"names several charsets \(latin1, utf-8\); name one"):
        decode_text(b"Rain", "latin1, utf-8")
    assert decode_text("Café".encode(), "utf-8, UTF8") == "Café"  # one charset, spelled twice


@pytest.mark.parametrize("parameters", ["charset*=utf-8''a; charset*0=b", "boundary*=x; boundary*0=y"])
def test_parameters_of_which_only_some_are_numbered(parameters: str) -> None:
    ContentType.parse(f"text/plain; {parameters}")
    header_parameter("content-type", f"text/plain; {parameters}", "boundary")


def test_a_mark_goes_before_the_declared_charset() -> None:
    """As browsers do: a mark is certain, a declaration often the default of a library."""
    for codec in ("utf-8-sig", "utf-16", "utf-32"):
        for charset in ("latin1", "utf-16be", "utf-8", "shift_jis"):
            assert decode_text("Rain fell on the café.".encode(codec), charset) == "Rain fell on the café."
    with pytest.raises(InvalidText, match="begins with the byte order mark of UTF-16, and is not UTF-16"):
        decode_text(b"\xff\xfe neither UTF-16 nor UTF-8", "")
    assert needs_decoding("Rain".encode("utf-16"), "")
    assert not needs_decoding("Rain".encode("utf-8-sig"), "")


@pytest.mark.parametrize(
    "text", ["Rain fell.", "In 2000, 1000000 people left.", "橋が開く。\n", "日本　一", "中国，一二三"]
)
@pytest.mark.parametrize("charset", ["utf-16", "utf-32"])
def test_the_order_of_bytes_without_a_mark(text: str, charset: str) -> None:
    """.NET writes UTF-16 so, and declares no order."""
    for order in ("-le", "-be"):
        assert decode_text(text.encode(charset + order), charset) == text


def test_an_order_of_bytes_that_is_not_certain() -> None:
    with pytest.raises(InvalidText, match="leaves the order of bytes open; declare utf-16le or utf-16be"):
        decode_text("日本一".encode("utf-16-le"), "utf-16")


@pytest.mark.parametrize(
    "charset", ["utf-16", "utf-16le", "utf-32be", "latin1", "windows-1252", "iso-8859-15"]
)
def test_utf8_that_is_declared_as_another_charset(charset: str) -> None:
    for text in ("Rain fell on the café.", "橋 rain"):
        with pytest.raises(InvalidText, match=f"the text is UTF-8, and its Content-Type says {charset}"):
            decode_text(text.encode(), charset)


def test_ascii_is_the_same_in_most_charsets() -> None:
    for charset in ("latin1", "windows-1252", "shift_jis"):
        assert decode_text(b"Rain fell.", charset) == "Rain fell."


def test_utf8_by_its_names() -> None:
    assert all(map(is_utf8, ("", "utf-8", "UTF8", "utf_8", "utf-8-sig")))
    assert not is_utf8("latin1")
