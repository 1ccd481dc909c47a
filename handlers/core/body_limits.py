"""Limits on the structure of a JSON body, so that parsing allocates at most a fixed multiple of the body's size."""

from typing import Any

from handlers.core.json_bounds import check_json_bounds

MAX_DEPTH = 32
"""Maximum number of levels of nested lists and objects. A tensor has at most eight dimensions."""
MAX_ELEMENTS = 10_000
"""Maximum number of lists, objects and strings in a body or form field, without lists of pixels."""
MAX_LISTS = 1_000_000
"""Maximum number of lists of pixels in a body."""
MAX_NUMBERS = 5_000_000
"""Maximum number of numbers in a body. Python needs up to 40 bytes for each."""
_MIN_BYTES_PER_LIST = 8  # [1,2,3],
ALWAYS_ALLOWED_LISTS = 60_000
"""Number of lists that a body of any length may contain. An image of 224 x 224 x 1 has 50,400."""


def check_bounds(body: Any, takes_numbers: bool) -> None:
    """Check that parsing a JSON body allocates at most a fixed multiple of its size.

    Args:
        body: JSON, or a list or object that the server has parsed, which is not checked.
        takes_numbers: Whether the body may hold images as nested lists, which are millions of numbers and many lists.

    Raises:
        InvalidRequest: The body exceeds a limit.
    """
    if isinstance(body, dict | list):  # parsed by the server
        return
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    if not takes_numbers:
        check_json_bounds(body, MAX_ELEMENTS, MAX_DEPTH)
        return
    lists = min(MAX_LISTS, max(ALWAYS_ALLOWED_LISTS, len(body) // _MIN_BYTES_PER_LIST))
    check_json_bounds(body, MAX_ELEMENTS + lists, MAX_DEPTH, MAX_NUMBERS)
