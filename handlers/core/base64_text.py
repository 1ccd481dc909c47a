"""Base64 as clients write it: with line breaks, URL-safe, without padding, or as a data URL."""

import base64
import re

_DATA_URL = re.compile(r"data:([^,]{0,200}),", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:https?|ftp|file)://", re.IGNORECASE)
_TO_STANDARD = str.maketrans("-_", "+/")
_LINE_LENGTHS = (60, 64, 72, 76)
"""Of encoders that break lines. A shell may have made spaces of the line breaks."""


def decode_base64(text: str) -> bytes:
    """Decode a string. Raises ValueError, whose message completes "the input ... " with what is wrong."""
    text = text.strip()
    if match := _DATA_URL.match(text):
        if not match[1].lower().endswith(";base64"):
            raise ValueError(
                "is a data URL that is not in base64, which would begin like data:image/png;base64,"
            )
        text = text[match.end() :].strip()
    if _ADDRESS.match(text):
        raise ValueError("is an address, which is not fetched; send the file itself in base64")
    lines = text.split()
    if any(" " in line.strip() for line in text.splitlines()) and not _are_lines(lines):
        raise ValueError("is base64 with spaces in it; in a form, write '+' as %2B")
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


def _are_lines(lines: list[str]) -> bool:
    length = len(lines[0])
    return (
        length in _LINE_LENGTHS
        and {len(line) for line in lines[:-1]} == {length}
        and len(lines[-1]) <= length
    )
