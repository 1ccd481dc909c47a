"""Bound the structure of a JSON body before it is parsed.

A body of a few MiB can describe millions of objects of 50 to 250 bytes each. Counting brackets, quotes and commas
takes milliseconds, holds no objects, and is enough to bound what the parser will allocate.
"""

from handlers.core.errors import InvalidRequest

MAX_ELEMENTS = 10_000
"""Lists, objects and strings of one body, keys included."""
MAX_DEPTH = 64

_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = frozenset(b"[{")


def check_json_bounds(
    body: bytes | bytearray | memoryview,
    max_elements: int = MAX_ELEMENTS,
    max_depth: int = MAX_DEPTH,
    max_values: int | None = None,
) -> None:
    """Check that parsing `body` creates a bounded number of objects. Does not check that it is valid JSON.

    Characters inside strings do not count, whatever a text contains. Up to the first syntax error, where the parser
    stops, the counts are upper bounds of what the parser creates.

    Args:
        body: JSON in UTF-8.
        max_elements: Lists, objects and strings together, keys included. These are what costs memory.
        max_depth: Levels of nested lists and objects.
        max_values: Values separated by commas, numbers included; `max_elements` if None. A flat list of numbers has
            one element and many values.

    Raises:
        InvalidRequest: A bound is exceeded.
    """
    if max_values is None:
        max_values = max_elements
    if isinstance(body, memoryview):
        body = bytes(body)
    openings = body.count(b"[") + body.count(b"{")
    quotes = body.count(b'"')
    if openings <= max_depth and openings + quotes <= max_elements and body.count(b",") < max_values:
        return
    if quotes:
        body = _outside_strings(body, max_elements)
        openings = body.count(b"[") + body.count(b"{")
        quotes = body.count(b'"')
    if openings + quotes // 2 > max_elements:
        raise _too_many_elements(max_elements)
    if body.count(b",") >= max_values:
        raise InvalidRequest(f"the JSON body has more than {max_values} values")
    if openings > max_depth and _depth(body) > max_depth:
        raise InvalidRequest(f"the JSON body is nested too deeply: more than {max_depth} levels")


def _outside_strings(body: bytes | bytearray, max_elements: int) -> bytes | bytearray:
    """`body` with every string replaced by two quotes. Raises InvalidRequest for too many strings."""
    if b"\\" in body:  # an escaped quote ends no string; outside a string a backslash is a syntax error
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if body.count(b'"') // 2 > max_elements:  # before splitting, which makes an object for each
        raise _too_many_elements(max_elements)
    return b'""'.join(body.split(b'"')[::2])


def _depth(structure: bytes | bytearray) -> int:
    depth = deepest = 0
    for character in structure.translate(None, _ALL_BUT_BRACKETS):
        depth += 1 if character in _OPENING else -1
        deepest = max(deepest, depth)
    return deepest


def _too_many_elements(max_elements: int) -> InvalidRequest:
    return InvalidRequest(f"the JSON body has more than {max_elements} lists, objects and strings")
