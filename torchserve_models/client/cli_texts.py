"""Texts and lists of lines as `predict` reads them from files: UTF-8, or UTF-16 with its byte order mark."""

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from torchserve_models.client.errors import InvalidText

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""PowerShell's `>` and Windows' editors write them."""


def read_text(content: bytes) -> str:
    """Decode a text. Raises InvalidText for other charsets, and for NUL bytes, as UTF-16 without its mark has."""
    text = _from_utf16(content) if content.startswith(_UTF16_MARKS) else _from_utf8(content)
    if "\0" in text:
        raise InvalidText(
            "neither an image nor a text: it has NUL bytes; a text in UTF-16 needs its byte order mark"
        )
    return text


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines in UTF-8, without their ends and without a byte order mark.

    Lines that are not UTF-16 come as they are, as names of files may be any bytes. Raises InvalidText, and OSError.
    """
    first = file.readline()
    if first.startswith(_UTF16_MARKS):
        yield from (line.rstrip("\r").encode() for line in _from_utf16(first + file.read()).split("\n"))
        return
    if first:
        yield first.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")
    for line in file:
        yield line.rstrip(b"\r\n")


def _from_utf8(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidText(f"neither an image nor UTF-8 text: byte {error.start} cannot be read") from None


def _from_utf16(content: bytes) -> str:
    try:
        return content.decode("utf-16")
    except UnicodeDecodeError as error:
        raise InvalidText(f"its first bytes say UTF-16, but byte {error.start} cannot be read") from None
