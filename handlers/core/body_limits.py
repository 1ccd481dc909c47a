"""How much structure the JSON of a request may have, so that parsing it takes a bounded multiple of its bytes."""

from typing import Any

from handlers.core.json_bounds import check_json_bounds

MAX_DEPTH = 32
"""Levels of lists and objects; a tensor has at most eight axes."""
MAX_ELEMENTS = 10_000
"""Lists, objects and strings of a body, and of a form's field, beside the rows of pixels."""
MAX_LISTS = 1_000_000
"""Pixels that are lists of their own."""
MAX_NUMBERS = 5_000_000
"""Of a body; Python needs up to 40 bytes for each."""
_BYTES_PER_LIST = 8  # [1,2,3],
ANY_LISTS = 60_000
"""Lists that any body may have, however short: an image of 224 x 224 x 1 has 50,400."""


def check_bounds(body: Any, takes_numbers: bool) -> None:
    """Check that parsing this JSON allocates a bounded multiple of its bytes. Raises InvalidRequest.

    Pixels are millions of numbers, as rows of [red, green, blue] also many lists, of which none takes fewer than
    `_BYTES_PER_LIST` bytes. All else is small.
    """
    if isinstance(body, dict | list):  # a server that decodes bodies itself
        return
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    if not takes_numbers:
        check_json_bounds(body, MAX_ELEMENTS, MAX_DEPTH)
        return
    lists = min(MAX_LISTS, max(ANY_LISTS, len(body) // _BYTES_PER_LIST))
    check_json_bounds(body, MAX_ELEMENTS + lists, MAX_DEPTH, MAX_NUMBERS)
