"""Limit the structure of a JSON body before it is parsed.

A body of a few MiB can contain millions of objects of 50 to 250 bytes each. Counting brackets, quotes and commas
takes milliseconds, allocates no objects, and bounds what the parser will allocate.
"""

from handlers.core.errors import InvalidRequest

MAX_ELEMENTS = 10_000
"""Maximum number of lists, objects and strings in a body, including keys."""
MAX_DEPTH = 64

_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING_BRACKETS = frozenset(b"[{")


def check_json_bounds(
    body: bytes | bytearray | memoryview,
    max_elements: int = MAX_ELEMENTS,
    max_depth: int = MAX_DEPTH,
    max_values: int | None = None,
) -> None:
    """Check that parsing `body` creates a limited number of objects. Invalid JSON is not rejected here.

    Characters inside strings are ignored. The counts are upper bounds of the objects that the parser creates before
    the first syntax error.

    Args:
        body: JSON in UTF-8.
        max_elements: Maximum number of lists, objects and strings, including keys. They take the most memory.
        max_depth: Maximum number of levels of nested lists and objects.
        max_values: Maximum number of values separated by commas, including numbers; `max_elements` if None. A flat
            list of numbers is one element with many values.

    Raises:
        InvalidRequest: A bound is exceeded.
    """
    if max_values is None:
        max_values = max_elements
    if isinstance(body, memoryview):
        body = bytes(body)
    num_brackets = body.count(b"[") + body.count(b"{")
    num_quotes = body.count(b'"')
    if (
        num_brackets <= max_depth
        and num_brackets + num_quotes <= max_elements
        and body.count(b",") < max_values
    ):
        return
    if num_quotes:
        body = _outside_strings(body, max_elements)
        num_brackets = body.count(b"[") + body.count(b"{")
        num_quotes = body.count(b'"')
    if num_brackets + num_quotes // 2 > max_elements:
        raise _too_many_elements(max_elements)
    if body.count(b",") >= max_values:
        raise InvalidRequest(f"the JSON body has more than {max_values} values")
    if num_brackets > max_depth and _depth(body) > max_depth:
        raise InvalidRequest(f"the JSON body is nested too deeply: more than {max_depth} levels")


def _outside_strings(body: bytes | bytearray, max_elements: int) -> bytes | bytearray:
    """Replace each string in `body` with two quotes. Raises InvalidRequest for too many strings."""
    if b"\\" in body:  # an escaped quote ends no string; outside a string a backslash is a syntax error
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if body.count(b'"') // 2 > max_elements:  # before the split, which creates an object for each
        raise _too_many_elements(max_elements)
    return b'""'.join(body.split(b'"')[::2])


def _depth(structure: bytes | bytearray) -> int:
    depth = deepest = 0
    for character in structure.translate(None, _ALL_BUT_BRACKETS):
        depth += 1 if character in _OPENING_BRACKETS else -1
        deepest = max(deepest, depth)
    return deepest


def _too_many_elements(max_elements: int) -> InvalidRequest:
    return InvalidRequest(f"the JSON body has more than {max_elements} lists, objects and strings")
