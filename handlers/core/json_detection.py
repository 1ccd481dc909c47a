"""Detect JSON by its content, because clients send it with any content type.

`curl -d` declares JSON as a form; `fetch` and `requests.post(data=json.dumps(...))` declare it as text or not at all.
A JSON request is never intended as an input text, and no image begins like JSON.
"""

import json
import re

from handlers.core.body_limits import check_bounds
from handlers.core.errors import InvalidRequest

_SPACE = " \t\r\n"
_START = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*")
_INVISIBLE = re.compile(r"[\s\0-\x20\x7f-\xa0\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]*")
"""Invisible characters that may precede JSON: copied spaces, byte order marks, record separators."""
_OBJECT = re.compile(
    r"""
    (?: b?' | "(?=[\[{\s]*\\") )?  # quotes of Python or a shell, or JSON within a JSON string
    (?: \[\s* )? \{ \s*
    (?: (?: //[^\n]{0,200}\n | /\*[^*]{0,200}\*/ ) \s* )?
    (?:
        \}
        | "(?: [^"\n]{0,80} (?: "\s*[:=}] | \Z ) | (?:inputs|parameters|instances|text)\b )
        | \\"\w{1,80}\\"
        | [“”„«][^“”„«»\n]{1,80}[“”»]\s*:
        | %22
        | '[^'\n]{0,80}'\s*:
        | :?\\?(?:inputs|parameters|instances|text)\\?"?\s*[:=]
    )
    """,
    re.VERBOSE,
)
"""An object with a key, in the notation of JSON, Python, Java or Ruby, or changed by a word processor or shell."""
_LIST = re.compile(
    r"""
    \[ \s* (?: "(?:[^"\\]|\\.)*+" | '(?:[^'\\]|\\.)*+' | “[^”]*+” )
    \s* (?: ,\s*["'“\]] | \] \s* (?: \Z | \[\s*["'“] ) )
    """,
    re.VERBOSE | re.DOTALL,
)
"""A list of strings in the notation of JSON or Python."""
_HEAD_CHARACTERS = 4096


def looks_like_json(content: bytes | bytearray | str) -> bool:
    """Return True if `content` is a JSON object, list, or string with escapes.

    Malformed objects and lists are included, so that they are rejected and not processed as texts.
    """
    head = _head(content)
    if head[:1] not in ("{", "[", '"', "'", "b"):
        return False
    if _OBJECT.match(head):
        return True
    last = _last(content)
    if head[0] == "[" and last == "]":
        return _LIST.match(head) is not None or _parses(content, list)
    return head[0] == '"' and last == '"' and _has_escape(content) and _parses(content, str)


def _head(content: bytes | bytearray | str) -> str:
    if isinstance(content, str):
        head = content.lstrip(_SPACE)[:_HEAD_CHARACTERS]
    else:
        match = _START.match(content)
        start = match.end() if match else 0
        head = bytes(content[start : start + _HEAD_CHARACTERS]).decode("utf-8", "replace")
    return _INVISIBLE.sub("", head, count=1)


def _last(content: bytes | bytearray | str) -> str:
    """Return the last character that is not a space, or "" if the last _HEAD_CHARACTERS are all spaces."""
    end = content[-_HEAD_CHARACTERS:]
    return (end if isinstance(end, str) else bytes(end).decode("latin-1")).rstrip(_SPACE)[-1:]


def _has_escape(content: bytes | bytearray | str) -> bool:
    return "\\" in content if isinstance(content, str) else b"\\" in content


def _parses(content: bytes | bytearray | str, kind: type) -> bool:
    """Return True if `content` is a JSON value of this type, or exceeds the parser's limits."""
    try:
        check_bounds(content, takes_numbers=True)
    except InvalidRequest:
        return True
    try:
        text = content if isinstance(content, str) else bytes(content).decode("utf-8-sig")
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False
