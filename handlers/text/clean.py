"""Conversion of a text payload to a clean string."""

import base64
import re
import unicodedata

from handlers.core.errors import InvalidRequest, InvalidText, TextTooLong
from handlers.core.tensor import Payload

_BREAKS = "\v\f\x1c\x1d\x1e\x1f"
"""Control characters that are replaced with a space, so that a page break does not join two words."""

_CONTROLS = {
    code: " " if chr(code) in _BREAKS else None for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n\r"
}

_SIGNATURES = {
    b"%PDF-": "PDF",
    b"{\\rtf": "RTF",
    b"PK\x03\x04": "ZIP (docx, odt, epub)",
    b"\xd0\xcf\x11\xe0": "Word 97",
    b"\x1f\x8b": "gzip",
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
}
_LONG_SIGNATURES = {
    "PDF": re.compile(rb"%PDF-\d\.\d[^\r\n\0]{0,8}[\r\n\0]"),
    "GIF": re.compile(rb"GIF8[79]a.{0,7}[\x00-\x08\x80-\xff]", re.DOTALL),
}
"""Longer signatures, for formats whose short signature may begin a text such as "GIF89a was released in 1989"."""
_DATA_URL = re.compile(r"\s*data:[^,\s]{0,200};base64,[A-Za-z0-9+/=_-]*\s*", re.IGNORECASE)
_BASE64 = re.compile(r"\s*([A-Za-z0-9+/]{16})[A-Za-z0-9+/]{16}")
_INVISIBLE_CHARACTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc")
"""Letters and symbols that are invisible."""
_MIN_BYTES_PER_NUL = 8
"""The number of bytes per NUL byte below which a text is rejected as UTF-16. Fewer NUL bytes are removed."""
_ENCODING_HINT = (
    "send UTF-8, or name the charset in Content-Type, as in 'text/plain; charset=windows-1252' (over gRPC and in "
    "tensors all texts are UTF-8)"
)


def clean_text(payload: Payload, max_characters: int) -> str:
    """Return the text of `payload` without control characters.

    Raises:
        InvalidRequest: The payload is a tensor of another type.
        InvalidText: The text is not UTF-8, is a file of another format (also in base64), or contains an unpaired
            surrogate or no visible character.
        TextTooLong: The text has more than `max_characters`.
    """
    text = _as_string(payload, max_characters)
    if len(text) > max_characters:
        raise _too_long(max_characters)
    if not text.isascii():
        _reject_surrogates(text)
    text = text.translate(_CONTROLS)
    _reject_base64_files(text)
    if not any(map(_is_visible, text)):
        raise InvalidText("the text is empty or contains only whitespace")
    return text


def _as_string(payload: Payload, max_characters: int) -> str:
    if isinstance(payload, str):
        return payload
    if not isinstance(payload, bytes):
        raise InvalidRequest("the input must be text; a tensor of text must have datatype BYTES")
    if len(payload) > 4 * max_characters:  # UTF-8 takes at most four bytes a character
        raise _too_long(max_characters)
    if file_format := _file_format(payload):
        raise InvalidText(f"the input is a {file_format} file; this model reads plain text")
    if payload.count(0) > len(payload) // _MIN_BYTES_PER_NUL:
        raise InvalidText(f"the text contains NUL bytes, as in UTF-16, and is not UTF-8; {_ENCODING_HINT}")
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"the text is not UTF-8: byte {error.start} cannot be read; {_ENCODING_HINT}"
        ) from None


def _is_visible(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNPS" and character not in _INVISIBLE_CHARACTERS


def _reject_base64_files(text: str) -> None:
    """Raise InvalidText if the text is a data URL or a file in base64."""
    if _DATA_URL.fullmatch(text):
        raise InvalidText("the input is a data URL; send the text itself")
    if match := _BASE64.match(text):
        start = base64.b64decode(match[1])
        if file_format := _file_format(start):
            raise InvalidText(f"the input is a {file_format} file in base64; this model reads plain text")


def _file_format(content: bytes) -> str | None:
    """Return the format of a file that is not text, detected from its first bytes, or None."""
    name = next((name for start, name in _SIGNATURES.items() if content.startswith(start)), None)
    if name in _LONG_SIGNATURES and not _LONG_SIGNATURES[name].match(content):
        return None
    return name


def _reject_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidText(f"the text contains an unpaired surrogate at character {error.start}") from None


def _too_long(max_characters: int) -> TextTooLong:
    return TextTooLong(f"the text is longer than {max_characters} characters")
