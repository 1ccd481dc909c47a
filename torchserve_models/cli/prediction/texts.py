"""Read texts and lines from files in UTF-8, or in UTF-16 with a byte order mark."""

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from torchserve_models.client.errors import InvalidText

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""Byte order marks of UTF-16, which PowerShell's `>` and Windows editors write."""


def read_text(content: bytes) -> str:
    """Decode a text. Raises InvalidText for other encodings and for NUL bytes, as in UTF-16 without its mark."""
    text = _from_utf16(content) if content.startswith(_UTF16_MARKS) else _from_utf8(content)
    if "\0" in text:
        raise InvalidText(
            "the input is not a text because it has NUL bytes; pass an image, or save the text as UTF-8 or as UTF-16 "
            "with a byte order mark"
        )
    return text


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file, without line endings and byte order mark.

    Lines of UTF-16 files are converted to UTF-8. All other lines are yielded unchanged, because file names can have
    any bytes.

    Raises:
        InvalidText: The file starts with a UTF-16 byte order mark, but is not valid UTF-16.
        OSError: The file cannot be read.
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
        raise InvalidText(
            f"the input is not UTF-8 text: byte {error.start} is invalid; pass an image, or save the text as UTF-8"
        ) from None


def _from_utf16(content: bytes) -> str:
    try:
        return content.decode("utf-16")
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"the input starts with a UTF-16 byte order mark, but byte {error.start} is not valid UTF-16"
        ) from None
