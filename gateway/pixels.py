"""Convert the body of /model, `{"img": [[[red, green, blue], ...], ...]}`, to an image file without Python objects.

As Python lists the numbers of a body of 16 MiB take 25 times its memory and block the event loop for seconds.
"""

import io
import re

import numpy as np
from PIL import Image

from handlers.core.errors import InvalidImage, InvalidRequest
from handlers.core.json_bounds import check_json_bounds
from handlers.core.request import parse_json

FIELD = "img"
COPIES = 3
"""Peak memory in multiples of the body's size."""
_MESSAGE = "'img' must be lists [height][width][3] of integers from 0 to 255"
_SPACE = rb"[ \t\n\r]*"
_START = re.compile(_SPACE + rb"\{" + _SPACE + rb'"img"' + _SPACE + b":" + _SPACE + rb"(?=\[)")
_OPENING = b'{"img":['
_WHITESPACE = b" \t\n\r"
_DIGITS = b"0123456789"
_TO_SPACES = bytes.maketrans(b"[],\t\n\r", b"      ")
_EMPTY = (b"[,", b",,", b",]")
_CHUNK_BYTES = 2**20
_MAX_PARSED_BYTES = 2**20


def to_bitmap(body: bytes | bytearray) -> bytes:
    """Return the pixels as a lossless BMP file. Raises InvalidImage or InvalidRequest."""
    pixels = _read_pixels(body)
    if pixels is None:
        raise _problem(body)
    if pixels.max() > 255:
        raise InvalidImage(_MESSAGE)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "BMP")
    return buffer.getvalue()


def _read_pixels(body: bytes | bytearray) -> np.ndarray | None:
    """Numbers of shape [height, width, 3], or None where the body is anything else."""
    structure = body.translate(None, _DIGITS + _WHITESPACE)
    shape = _shape(structure)
    start = _START.match(body)
    end = body.rfind(b"}")
    if shape is None or start is None or body[end + 1 :].strip(_WHITESPACE):
        return None
    count, structure_bytes = shape[0] * shape[1] * 3, len(structure)
    del structure
    compact = body.translate(None, _WHITESPACE)
    if any(empty in compact for empty in _EMPTY) or len(compact) - structure_bytes > 3 * count:
        return None
    del compact
    numbers = _read_numbers(body, start.end(), end, count)
    return None if numbers is None else numbers.reshape(shape)


def _shape(structure: bytes | bytearray) -> tuple[int, int, int] | None:
    """The shape, of the body without digits. None unless all rows have as many pixels, all of three numbers."""
    first_end = structure.find(b"]]") + 2
    if not structure.startswith(_OPENING) or not structure.endswith(b"]}") or first_end < len(_OPENING) + 2:
        return None
    every = np.frombuffer(structure, np.uint8)[len(_OPENING) : -1]
    row = every[: first_end - len(_OPENING)]
    if (len(row) - 1) % 5 or len(every) % (len(row) + 1):
        return None
    # Each pixel with the comma behind it, the last of which is the row's end; the same for rows.
    pixels = row[1:].reshape(-1, 5)
    rows = every.reshape(-1, len(row) + 1)
    if row[0] != ord("[") or (pixels[:, :4] != np.frombuffer(b"[,,]", np.uint8)).any():
        return None
    if (pixels[:-1, 4] != ord(",")).any() or (rows[:-1, -1] != ord(",")).any() or (rows[:, :-1] != row).any():
        return None
    return len(rows), len(pixels), 3


def _read_numbers(body: bytes | bytearray, start: int, end: int, count: int) -> np.ndarray | None:
    """The numbers between `start` and `end`. None for another count, or a number that JSON would not take (`007`)."""
    numbers = np.empty(count, np.uint16)
    filled = 0
    while start < end:
        chunk_end = body.find(b",", start + _CHUNK_BYTES, end) + 1 or end
        text = b" " + bytes(body[start:chunk_end]).translate(_TO_SPACES) + b" "
        start = chunk_end
        characters = np.frombuffer(text, np.uint8)
        digits = characters != ord(" ")
        if (~digits[:-2] & (characters[1:-1] == ord("0")) & digits[2:]).any():
            return None
        if not digits.any():
            continue
        found = np.fromstring(text, np.int64, sep=" ")  # beyond 64 bits: the largest
        if filled + len(found) > count:
            return None
        numbers[filled : filled + len(found)] = found.clip(0, 2**16 - 1)
        filled += len(found)
    return numbers if filled == count else None


def _problem(body: bytes | bytearray) -> Exception:
    """Why these are not pixels, as exactly as a bounded amount of parsing can tell."""
    try:
        check_json_bounds(body)
    except InvalidRequest:
        return InvalidImage(_MESSAGE)
    if len(body) > _MAX_PARSED_BYTES:
        return InvalidImage(_MESSAGE)
    try:
        message = parse_json(body)
    except InvalidRequest as error:
        return error
    if not isinstance(message, dict) or message.keys() != {FIELD}:
        return InvalidRequest(f"the body must be a JSON object with the one field '{FIELD}'")
    return InvalidImage(_MESSAGE)
