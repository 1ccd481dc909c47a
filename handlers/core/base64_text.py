"""Decode base64 in the variants that clients send: with line breaks, URL-safe, without padding, or as a data URL."""

import base64
import re

_DATA_URL = re.compile(r"data:([^,]{0,200}),", re.IGNORECASE)
_URL = re.compile(r"(?:https?|ftp|file)://", re.IGNORECASE)
_TO_STANDARD = str.maketrans("-_", "+/")
_LINE_LENGTHS = (60, 64, 72, 76)
"""Line lengths of common encoders. A shell may replace the line breaks with spaces."""


def decode_base64(text: str) -> bytes:
    """Return the decoded bytes.

    Raises:
        ValueError: The text is not base64. The message is a predicate, to follow a subject such as "the input".
    """
    text = text.strip()
    if match := _DATA_URL.match(text):
        if not match[1].lower().endswith(";base64"):
            raise ValueError(
                "is a data URL without base64; it must begin with its type and base64, as in data:image/png;base64,"
            )
        text = text[match.end() :].strip()
    if _URL.match(text):
        raise ValueError("is a URL, and URLs are not downloaded; send the file itself in base64")
    lines = text.split()
    if any(" " in line.strip() for line in text.splitlines()) and not _have_line_length(lines):
        raise ValueError("is base64 that contains spaces; in a form, encode '+' as %2B")
    content = "".join(lines)
    is_standard = "+" in content or "/" in content
    if not is_standard and ("-" in content or "_" in content):
        content = content.translate(_TO_STANDARD)
    if not content.endswith("="):
        content += "=" * (-len(content) % 4)
    try:
        return base64.b64decode(content, validate=True)
    except ValueError:
        raise ValueError("is not base64") from None


def _have_line_length(lines: list[str]) -> bool:
    length = len(lines[0])
    return (
        length in _LINE_LENGTHS
        and {len(line) for line in lines[:-1]} == {length}
        and len(lines[-1]) <= length
    )
