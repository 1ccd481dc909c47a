"""Cleaning of text payloads, and errors for payloads that are not text."""

import base64

import numpy as np
import pytest

from handlers.core.errors import HandlerError, InvalidRequest, InvalidText, TextTooLong
from handlers.text.clean import clean_text


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("plain", "plain"),
        (b"caf\xc3\xa9", "café"),
        (b"\xef\xbb\xbfwith a mark", "with a mark"),
        ("a\0b\x07c\x7f", "abc"),
        ("page one\fpage two\vand on", "page one page two and on"),
        (b"one stray\0 NUL", "one stray NUL"),
        ("lines\r\nand\ttabs", "lines\r\nand\ttabs"),
        ("?", "?"),
        ("data:text/plain;base64,UmFp is a data URL", "data:text/plain;base64,UmFp is a data URL"),
        ("Donaudampfschifffahrtsgesellschaft", "Donaudampfschifffahrtsgesellschaft"),
        ("שלום עולם 😀 \u202eabc", "שלום עולם 😀 \u202eabc"),
    ],
)
def test_control_characters_are_removed(payload: bytes | str, text: str) -> None:
    assert clean_text(payload, 100) == text


@pytest.mark.parametrize(
    ("payload", "error", "words"),
    [
        (b"ab\xff", InvalidText, "byte 2"),
        (b"caf\xe9", InvalidText, "send UTF-8, or name the charset in Content-Type"),
        ("Rain fell.".encode("utf-16-le"), InvalidText, "NUL bytes, as in UTF-16"),
        ("Rain fell.".encode("utf-16"), InvalidText, "UTF-16"),
        ("Rain fell.".encode("utf-32-be"), InvalidText, "NUL bytes"),
        (b"%PDF-1.7\n1 0 obj", InvalidText, "the input is a PDF file; this model reads plain text"),
        (b"{\\rtf1\\ansi Rain fell.}", InvalidText, "RTF"),
        (b"\xed\xa0\x80", InvalidText, "UTF-8"),
        (b"\xf0\x9f", InvalidText, "UTF-8"),
        ("a\ud800b", InvalidText, "character 1"),
        ("", InvalidText, "empty"),
        (b"", InvalidText, "empty"),
        (" \t\n\u3000\u00a0", InvalidText, "empty"),
        ("\0\0\x01", InvalidText, "empty"),
        ("\u200b\u200d\ufeff", InvalidText, "empty"),
        ("\u2800\u3164 \u115f\ufffc\u0301\ufe0f", InvalidText, "empty"),
        ("data:text/plain;base64,UmFpbiBmZWxsLg==", InvalidText, "a data URL; send the text itself"),
        ("DATA:;base64,\n", InvalidText, "a data URL"),
        (base64.b64encode(b"%PDF-1.7" + bytes(40)).decode(), InvalidText, "a PDF file in base64"),
        (base64.encodebytes(b"\x89PNG\r\n\x1a\n" + bytes(60)), InvalidText, "a PNG file in base64"),
        (np.zeros((2, 2, 3), np.uint8), InvalidRequest, "BYTES"),
    ],
)
def test_payload_that_is_not_text_is_rejected(
    payload: bytes | str, error: type[HandlerError], words: str
) -> None:
    with pytest.raises(error, match=words):
        clean_text(payload, 100)


@pytest.mark.parametrize("payload", ["a" * 101, b"a" * 101, b"\xff" * 500, "é" * 101, " " * 101])
def test_text_with_too_many_characters_is_rejected(payload: bytes | str) -> None:
    with pytest.raises(TextTooLong, match="100 characters"):
        clean_text(payload, 100)


def test_limit_counts_characters_and_not_bytes() -> None:
    assert clean_text("😀".encode() * 100, 100) == "😀" * 100
