"""Reading texts and lines in UTF-8 and UTF-16."""

import io

import pytest

from torchserve_models.cli.prediction.texts import read_lines, read_text
from torchserve_models.client import InvalidText

LINES = ["été.jpg", "", "b c.png"]


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("is_ended", [True, False])
def test_read_lines_supports_all_charsets_and_line_endings(charset, end, is_ended):
    content = (end.join(LINES) + (end if is_ended else "")).encode(charset)
    lines = [line.decode() for line in read_lines(io.BytesIO(content))]
    assert [line for line in lines if line] == ["été.jpg", "b c.png"]
    assert lines[:3] == LINES


def test_lines_in_other_charsets_are_yielded_unchanged():
    assert list(read_lines(io.BytesIO(b"\xe9.jpg\nb\n"))) == [b"\xe9.jpg", b"b"]
    assert list(read_lines(io.BytesIO(b""))) == []


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16"])
def test_read_text_supports_all_charsets(charset):
    assert read_text("Es regnet über Köln.".encode(charset)) == "Es regnet über Köln."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Köln".encode("latin-1"), "not UTF-8 text: byte 1 is invalid"),
        ("Rain fell.".encode("utf-16-le"), "NUL bytes; pass an image"),
        (b"\xff\xfeabc", "starts with a UTF-16 byte order mark, but byte 4"),
    ],
)
def test_invalid_text_is_rejected(content, message):
    with pytest.raises(InvalidText, match=message):
        read_text(content)


def test_lines_with_invalid_utf16_are_rejected():
    with pytest.raises(InvalidText, match="not valid UTF-16"):
        list(read_lines(io.BytesIO(b"\xff\xfeabc")))
