"""Convert the body of /model, `{"img": PIXELS}`, to an image file while it arrives, a few rows at a time.

PIXELS is what `numpy.asarray(image).tolist()` gives for a Pillow image: [height][width] of gray levels or booleans,
or [height][width][channels] with 1 (gray), 2 (gray, alpha), 3 (red, green, blue) or 4 channels (with alpha). All of
them at once as Python objects would take 25 times the memory of the body.
"""

import codecs
import io
import json
import re
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from handlers.core.errors import HandlerError, ImageTooLarge, InvalidImage, InvalidRequest
from handlers.core.json_message import parse_json

FIELD = "img"
MAX_SIDE = 65_535
"""Pixels of a row, and rows: what a JPEG file can have."""
MAX_NUMBERS = 12_000_000
"""Numbers of one image: its file, a byte each, fits into one request to TorchServe even in base64."""
MAX_ROW_CHARACTERS = 2**20
"""JSON of one row. It bounds the Python objects that exist at a time to about 25 MB."""
MAX_AMBIGUOUS = 3.0
"""Floats up to 1 are read as 0 to 1, from here on as 0 to 255. The largest of normalized images is in between."""
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def _refuse_constant(name: str) -> Any:
    raise InvalidRequest(f"the body is not valid JSON: {name} is not a number")


_SHAPE = f"'{FIELD}' must be lists [height][width] or [height][width][1 to 4] of numbers from 0 to 255"
_ABOVE = "has a number above 255; scale pixels of 16 bits"
_BELOW = "has a number below 0; undo the normalization of the pixels"
_ONE_FIELD = f"the body must be a JSON object with the one field '{FIELD}'; parameters go into the query"
_SPACE = re.compile(r"[ \t\n\r]*")
_START = re.compile(r'[ \t\n\r]*\{[ \t\n\r]*"img"[ \t\n\r]*:[ \t\n\r]*\[')
_SEPARATOR = re.compile(r"[ \t\n\r]*([,\]])")
_END = re.compile(r"[ \t\n\r]*\}[ \t\n\r]*")
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_PARSE_CHARACTERS = _MAX_START_CHARACTERS = 2**16
_LONGEST_LITERAL = len("-Infinity")
_UNIT = bytes([0]) + bytes([255]) * 255


class PixelParser:
    """`feed` it the pieces of a body in order, then `finish`. After an error it is of no further use."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._parse_at = _PARSE_CHARACTERS
        self._started = self._ended = False
        self._width = self._rows = 0
        self._channels: int | None = None
        self._booleans = self._floats = self._fractions = False
        self._largest = 0.0
        self._levels = bytearray()
        # The levels if the numbers run from 0 to 1; None as soon as one is larger.
        self._unit_levels: bytearray | None = bytearray()

    @property
    def memory_bytes(self) -> int:
        """What is kept until `finish`."""
        return len(self._text) + len(self._levels) + len(self._unit_levels or b"")

    @property
    def file_bytes(self) -> int:
        """The size of the image's file, about."""
        return len(self._levels)

    def feed(self, piece: bytes) -> None:
        """Raises InvalidImage, InvalidRequest or ImageTooLarge, as soon as it is certain."""
        for at in range(0, len(piece), _PARSE_CHARACTERS):
            try:
                self._text += self._decoder.decode(piece[at : at + _PARSE_CHARACTERS])
            except UnicodeDecodeError:
                raise InvalidRequest(
                    f"the body is not UTF-8, as JSON is; {_ONE_FIELD}; a file goes to /predict"
                ) from None
            if len(self._text) >= self._parse_at:
                self._parse()
                # A row that is not complete is parsed again from its beginning.
                self._parse_at = min(max(_PARSE_CHARACTERS, 2 * len(self._text)), MAX_ROW_CHARACTERS + 1)

    def finish(self) -> bytes:
        """The image as a PNG file without compression. Raises what `feed` does."""
        self._parse()
        if not self._started:
            raise _problem(self._text)
        if not self._ended:
            raise self._malformed("the list of rows is not closed")
        if not _END.fullmatch(self._text):
            raise InvalidRequest(_ONE_FIELD)
        levels = np.frombuffer(self._chosen_levels(), np.uint8)
        shape = (self._rows, self._width) + ((self._channels,) if self._channels not in (None, 1) else ())
        buffer = io.BytesIO()
        image = Image.fromarray(levels.reshape(shape), _MODES[self._channels or 1])
        image.save(buffer, "PNG", compress_level=0)
        return buffer.getvalue()

    def _parse(self) -> None:
        """Take the complete rows out of the text."""
        position = 0
        if not self._started and (start := _START.match(self._text)):
            self._started, position = True, start.end()
        if not self._started:
            if len(self._text) > _MAX_START_CHARACTERS:
                raise InvalidRequest(_ONE_FIELD)
            return
        while not self._ended:
            found = self._next_row(position)
            if found is None:
                break
            row, separator = found
            self._add(row)
            position = separator.end()
            self._ended = separator[1] == "]"
        self._text = self._text[position:]
        if len(self._text) > MAX_ROW_CHARACTERS:
            if self._ended:
                raise InvalidRequest(_ONE_FIELD)
            raise ImageTooLarge(f"{self._name()} is longer than 1 MiB of JSON; send the image as a file")

    def _next_row(self, position: int) -> tuple[Any, re.Match[str]] | None:
        """A row and what is behind it; None where the text ends before."""
        position = _SPACE.match(self._text, position).end()  # type: ignore[union-attr]
        try:
            row, end = _DECODER.raw_decode(self._text, position)
        except json.JSONDecodeError as error:
            if self._text.startswith("]", position) and not self._rows:
                raise InvalidImage(f"'{FIELD}' is empty") from None
            if error.pos < len(self._text) - _LONGEST_LITERAL:
                raise self._malformed(error.msg) from None
            return None
        except RecursionError:
            raise InvalidImage(_SHAPE) from None
        except ValueError:  # an integer of thousands of digits
            raise self._wrong(_ABOVE) from None
        separator = _SEPARATOR.match(self._text, end)
        if separator is None and self._text[end:].strip():
            raise self._malformed("',' or ']' is expected behind it")
        return (row, separator) if separator else None

    def _add(self, row: Any) -> None:
        if not isinstance(row, list) or not row:
            raise self._wrong("must be a list of pixels")
        if not self._rows:
            self._set_shape(row)
        if len(row) != self._width:
            raise self._wrong(f"has {len(row)} pixels, and the first row {self._width}")
        if self._channels:
            if set(map(type, row)) != {list} or set(map(len, row)) != {self._channels}:
                raise self._wrong(f"must be pixels of {self._channels} numbers each, as the first one is")
            row = list(chain.from_iterable(row))
        if self._rows == MAX_SIDE:
            raise ImageTooLarge(f"the image has more than {MAX_SIDE} rows")
        if len(self._levels) + len(row) > MAX_NUMBERS:
            raise ImageTooLarge(f"the image has more than {MAX_NUMBERS} numbers; send it as a file")
        self._add_numbers(row)
        self._rows += 1

    def _set_shape(self, row: list[Any]) -> None:
        self._width = len(row)
        if self._width > MAX_SIDE:
            raise ImageTooLarge(f"the image has more than {MAX_SIDE} pixels in a row")
        if isinstance(row[0], list):
            self._channels = len(row[0])
            if self._channels not in _MODES or isinstance(row[0][0], list):
                raise InvalidImage(f"{_SHAPE}; one image, channels last")
        self._booleans = isinstance(row[0], bool)

    def _add_numbers(self, numbers: list[Any]) -> None:
        kinds = set(map(type, numbers))
        if self._booleans:
            if kinds != {bool}:
                raise self._wrong("must be true and false throughout, as it begins")
            self._levels += bytes(numbers).translate(_UNIT)
            self._unit_levels = None
            return
        if not kinds <= {int, float}:
            raise self._wrong("must be numbers")
        try:
            if kinds == {int}:
                levels = bytes(numbers)
                largest, unit = float(max(levels)), levels.translate(_UNIT)
            else:
                levels, largest, unit = self._of_floats(np.array(numbers, np.float64))
        except (ValueError, OverflowError):
            raise self._wrong(_BELOW if min(numbers) < 0 else _ABOVE) from None
        self._levels += levels
        self._largest = max(self._largest, largest)
        if self._largest > 1:
            self._unit_levels = None
        elif self._unit_levels is not None:
            self._unit_levels += unit

    def _of_floats(self, numbers: np.ndarray) -> tuple[bytes, float, bytes]:
        """Levels by both readings, and the largest number. Raises ValueError."""
        largest = float(numbers.max())
        if not (numbers.min() >= 0 and largest <= 255):
            raise ValueError("out of range")
        self._floats = True
        self._fractions = self._fractions or bool((numbers != np.rint(numbers)).any())
        unit = np.rint(255 * np.minimum(numbers, 1)).astype(np.uint8)
        return np.rint(numbers).astype(np.uint8).tobytes(), largest, unit.tobytes()

    def _chosen_levels(self) -> bytearray:
        """Integers are levels from 0 to 255. Floats are, too, or run from 0 to 1. Raises InvalidImage if unsure."""
        if not self._floats or self._largest == 0 or self._largest >= MAX_AMBIGUOUS:
            return self._levels
        if self._unit_levels is not None and self._fractions:
            return self._unit_levels
        raise InvalidImage(
            f"the floats of '{FIELD}' are from 0 to {self._largest:g}: it is not certain whether white is 1 or 255; "
            f"send integers from 0 to 255"
        )

    def _name(self) -> str:
        return f"{FIELD}[{self._rows}]"

    def _wrong(self, what: str) -> HandlerError:
        return InvalidImage(f"{self._name()} {what}. {_SHAPE}")

    def _malformed(self, what: str) -> HandlerError:
        return InvalidRequest(f"the body is not valid JSON: {self._name()}: {what}")


def _problem(text: str) -> HandlerError:
    """Why a short body does not begin with a list of pixels."""
    if not text.strip():
        return InvalidRequest(f"the body is empty; {_ONE_FIELD}")
    try:
        message = parse_json(text)
    except InvalidRequest as error:
        return InvalidRequest(f"{error.message}; {_ONE_FIELD}")
    if not isinstance(message, dict) or message.keys() != {FIELD}:
        return InvalidRequest(_ONE_FIELD)
    return InvalidImage(_SHAPE)
