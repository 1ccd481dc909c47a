"""A text payload as a clean string, or a clear error."""

import base64
import re
import unicodedata

from handlers.core.errors import InvalidRequest, InvalidText, TextTooLong
from handlers.core.tensor import Payload

_BREAKS = "\v\f\x1c\x1d\x1e\x1f"
"""Control characters that separate: a page break between two words must not join them."""

_CONTROLS = {
    code: " " if chr(code) in _BREAKS else None for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n\r"
}

_OTHER_FILES = {
    b"%PDF-": "PDF",
    b"{\\rtf": "RTF",
    b"PK\x03\x04": "ZIP (docx, odt, epub)",
    b"\xd0\xcf\x11\xe0": "Word 97",
    b"\x1f\x8b": "gzip",
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
}
_LOOKALIKES = {
    "PDF": re.compile(rb"%PDF-\d\.\d[^\r\n\0]{0,8}[\r\n\0]"),
    "GIF": re.compile(rb"GIF8[79]a.{0,7}[\x00-\x08\x80-\xff]", re.DOTALL),
}
"""More of a file's beginning, where a text may begin alike: "GIF89a was released in 1989"."""
_DATA_URL = re.compile(r"\s*data:[^,\s]{0,200};base64,[A-Za-z0-9+/=_-]*\s*", re.IGNORECASE)
_BASE64 = re.compile(r"\s*([A-Za-z0-9+/]{16})[A-Za-z0-9+/]{16}")
_BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc")
"""Letters and symbols that show nothing."""
_BYTES_PER_NUL = 8
"""Text in UTF-16 has a NUL in every second byte where it is ASCII; a stray NUL in UTF-8 is removed."""
_WHAT_TO_SEND = (
    "send UTF-8, or name the charset in Content-Type, as in 'text/plain; charset=windows-1252' (over gRPC and in "
    "tensors all texts are UTF-8)"
)


def clean_text(payload: Payload, max_characters: int) -> str:
    """The text of `payload` without control characters.

    Raises InvalidText for bytes that are not UTF-8, files of other kinds (also in base64), lone surrogates, and
    nothing to read; TextTooLong.
    """
    text = _as_string(payload, max_characters)
    if len(text) > max_characters:
        raise _too_long(max_characters)
    if not text.isascii():
        _refuse_surrogates(text)
    text = text.translate(_CONTROLS)
    _refuse_base64(text)
    if not any(map(_is_visible, text)):
        raise InvalidText("the text is empty, or has nothing to read but spaces")
    return text


def _as_string(payload: Payload, max_characters: int) -> str:
    if isinstance(payload, str):
        return payload
    if not isinstance(payload, bytes):
        raise InvalidRequest("the input must be text; as a tensor, of datatype BYTES")
    if len(payload) > 4 * max_characters:  # UTF-8 takes at most four bytes a character
        raise _too_long(max_characters)
    if kind := _kind_of_file(payload):
        raise InvalidText(f"the input is a {kind} file; this model reads plain text")
    if payload.count(0) > len(payload) // _BYTES_PER_NUL:
        raise InvalidText(f"the text has NUL bytes, as UTF-16 has, and is not UTF-8; {_WHAT_TO_SEND}")
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"the text is not UTF-8: byte {error.start} cannot be read; {_WHAT_TO_SEND}"
        ) from None


def _is_visible(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNPS" and character not in _BLANKS


def _refuse_base64(text: str) -> None:
    """Raise InvalidText for a file in base64, which a text never is by chance."""
    if _DATA_URL.fullmatch(text):
        raise InvalidText("the input is a data URL; send the text itself")
    if match := _BASE64.match(text):
        start = base64.b64decode(match[1])
        if kind := _kind_of_file(start):
            raise InvalidText(f"the input is a {kind} file in base64; this model reads plain text")


def _kind_of_file(content: bytes) -> str | None:
    kind = next((kind for start, kind in _OTHER_FILES.items() if content.startswith(start)), None)
    if kind in _LOOKALIKES and not _LOOKALIKES[kind].match(content):
        return None
    return kind


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidText(f"the text has half a surrogate pair at character {error.start}") from None


def _too_long(max_characters: int) -> TextTooLong:
    return TextTooLong(f"the text is longer than {max_characters} characters")
