"""Tell JSON from text and files by its content, as clients send JSON under every content type.

`curl -d` calls it a form, `fetch` and `requests.post(data=json.dumps(...))` call it text or nothing. The source of a
JSON request is never an input, and no image begins like one.
"""

import json
import re

from handlers.core.body_limits import check_bounds
from handlers.core.errors import InvalidRequest

_SPACE = " \t\r\n"
_START = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*")
_INVISIBLE = re.compile(r"[\s\0-\x20\x7f-\xa0\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]*")
"""Characters that may stand before JSON unseen: copied spaces, byte order marks, record separators."""
_OBJECT = re.compile(
    r"""
    (?: b?' | "(?=[\[{\s]*\\") )?  # a string of Python or a shell, or one that JSON holds in a string
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
"""An object with a key: as JSON, Python, Java or Ruby write it, as a word processor or a shell has left it."""
_LIST = re.compile(
    r"""
    \[ \s* (?: "(?:[^"\\]|\\.)*+" | '(?:[^'\\]|\\.)*+' | “[^”]*+” )
    \s* (?: ,\s*["'“\]] | \] \s* (?: \Z | \[\s*["'“] ) )
    """,
    re.VERBOSE | re.DOTALL,
)
"""Strings in a list, as JSON or Python write them."""
_HEAD = 4096


def is_json_source(content: bytes | bytearray | str) -> bool:
    """Whether `content` is meant as JSON: an object or list, also a malformed object, or a string with escapes.

    What is meant as JSON but is not valid must be refused, so that it is never read as text.
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
        head = content.lstrip(_SPACE)[:_HEAD]
    else:
        match = _START.match(content)
        start = match.end() if match else 0
        head = bytes(content[start : start + _HEAD]).decode("utf-8", "replace")
    return _INVISIBLE.sub("", head, count=1)


def _last(content: bytes | bytearray | str) -> str:
    """The last character that is not a space, or "" where more than a few are."""
    end = content[-_HEAD:]
    return (end if isinstance(end, str) else bytes(end).decode("latin-1")).rstrip(_SPACE)[-1:]


def _has_escape(content: bytes | bytearray | str) -> bool:
    return "\\" in content if isinstance(content, str) else b"\\" in content


def _parses(content: bytes | bytearray | str, kind: type) -> bool:
    """Whether `content` is one JSON value of this type; what has more structure than is ever parsed counts as one."""
    try:
        check_bounds(content, takes_numbers=True)
    except InvalidRequest:
        return True
    try:
        text = content if isinstance(content, str) else bytes(content).decode("utf-8-sig")
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False
