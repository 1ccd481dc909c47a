"""Files of texts and of lines, in the charsets in which people have them."""

import io

import pytest

from torchserve_models.client import InvalidText
from torchserve_models.client.cli_texts import read_lines, read_text

LINES = ["été.jpg", "", "b c.png"]


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("is_ended", [True, False])
def test_lines(charset, end, is_ended):
    content = (end.join(LINES) + (end if is_ended else "")).encode(charset)
    found = [line.decode() for line in read_lines(io.BytesIO(content))]
    assert [line for line in found if line] == ["été.jpg", "b c.png"]
    assert found[:3] == LINES


def test_lines_of_other_bytes_come_as_they_are():
    assert list(read_lines(io.BytesIO(b"\xe9.jpg\nb\n"))) == [b"\xe9.jpg", b"b"]
    assert list(read_lines(io.BytesIO(b""))) == []


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text(charset):
    assert read_text("Es regnet über Köln.".encode(charset)) == "Es regnet über Köln."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Köln".encode("latin-1"), "neither an image nor UTF-8 text: byte 1"),
        ("Rain fell.".encode("utf-16-le"), "NUL bytes; a text in UTF-16 needs its byte order mark"),
        (b"\xff\xfeabc", "its first bytes say UTF-16, but byte 4"),
    ],
)
def test_what_is_no_text(content, message):
    with pytest.raises(InvalidText, match=message):
        read_text(content)


def test_lines_that_are_not_utf_16():
    with pytest.raises(InvalidText, match="say UTF-16"):
        list(read_lines(io.BytesIO(b"\xff\xfeabc")))
