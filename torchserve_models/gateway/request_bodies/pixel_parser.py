"""Convert the body of /model, `{"img": PIXELS}`, to an image file while it arrives, a few rows at a time.

PIXELS is the result of `numpy.asarray(image).tolist()` for a Pillow image: [height][width] of gray levels or
booleans, or [height][width][channels] with 1 (gray), 2 (gray, alpha), 3 (red, green, blue) or 4 channels (with
alpha). As Python objects, all pixels at once would take 25 times the memory of the body.
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
"""The largest width and height in pixels, as in a JPEG file."""
MAX_NUMBERS = 12_000_000
"""Maximum numbers of one image. The file has one byte per number and fits into a TorchServe request as base64."""
MAX_ROW_CHARACTERS = 2**20
"""Maximum JSON characters of one row, so that its Python objects take at most about 25 MB."""
MAX_AMBIGUOUS = 3.0
"""Pixels whose largest float is at least this value range from 0 to 255; up to 1, they range from 0 to 1. A value in
between indicates a normalized image."""
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def _reject_constant(name: str) -> Any:
    raise InvalidRequest(f"the body is not valid JSON: {name} is not a JSON number")


_SHAPE = f"'{FIELD}' must be lists [height][width] or [height][width][1 to 4] of numbers from 0 to 255"
_ABOVE = "has a number above 255; scale pixels of 16 bits"
_BELOW = "has a number below 0; undo the normalization of the pixels"
_ONE_FIELD = f"the body must be a JSON object with the one field '{FIELD}'; send parameters in the query"
_SPACE = re.compile(r"[ \t\n\r]*")
_START = re.compile(r'[ \t\n\r]*\{[ \t\n\r]*"img"[ \t\n\r]*:[ \t\n\r]*\[')
_SEPARATOR = re.compile(r"[ \t\n\r]*([,\]])")
_END = re.compile(r"[ \t\n\r]*\}[ \t\n\r]*")
_DECODER = json.JSONDecoder(parse_constant=_reject_constant)
_PARSE_CHARACTERS = _MAX_START_CHARACTERS = 2**16
_LONGEST_LITERAL = len("-Infinity")
_UNIT = bytes([0]) + bytes([255]) * 255


class PixelParser:
    """Parser of one body: `feed` its chunks in order, then call `finish`. Do not use an instance after an error."""

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
        """Bytes of memory that the parser uses until `finish`."""
        return len(self._text) + len(self._levels) + len(self._unit_levels or b"")

    @property
    def file_bytes(self) -> int:
        """The approximate size of the image file."""
        return len(self._levels)

    def feed(self, chunk: bytes) -> None:
        """Parse a chunk. Raises InvalidImage, InvalidRequest or ImageTooLarge as soon as the body is invalid."""
        for at in range(0, len(chunk), _PARSE_CHARACTERS):
            try:
                self._text += self._decoder.decode(chunk[at : at + _PARSE_CHARACTERS])
            except UnicodeDecodeError:
                raise InvalidRequest(
                    f"the body is not UTF-8; {_ONE_FIELD}; send image files to /predict"
                ) from None
            if len(self._text) >= self._parse_at:
                self._parse()
                # An incomplete row is parsed again from its start.
                self._parse_at = min(max(_PARSE_CHARACTERS, 2 * len(self._text)), MAX_ROW_CHARACTERS + 1)

    def finish(self) -> bytes:
        """Return the image as an uncompressed PNG file. Raises the same errors as `feed`."""
        self._parse()
        if not self._started:
            raise _problem(self._text)
        if not self._ended:
            raise self._syntax_error("the list of rows has no closing ']'")
        if not _END.fullmatch(self._text):
            raise InvalidRequest(_ONE_FIELD)
        levels = np.frombuffer(self._choose_levels(), np.uint8)
        shape = (self._rows, self._width) + ((self._channels,) if self._channels not in (None, 1) else ())
        buffer = io.BytesIO()
        image = Image.fromarray(levels.reshape(shape), _MODES[self._channels or 1])
        image.save(buffer, "PNG", compress_level=0)
        return buffer.getvalue()

    def _parse(self) -> None:
        """Parse and remove the complete rows of the text."""
        position = 0
        if not self._started and (start := _START.match(self._text)):
            self._started, position = True, start.end()
        if not self._started:
            if len(self._text) > _MAX_START_CHARACTERS:
                raise InvalidRequest(_ONE_FIELD)
            return
        while not self._ended:
            row_match = self._next_row(position)
            if row_match is None:
                break
            row, separator = row_match
            self._add(row)
            position = separator.end()
            self._ended = separator[1] == "]"
        self._text = self._text[position:]
        if len(self._text) > MAX_ROW_CHARACTERS:
            if self._ended:
                raise InvalidRequest(_ONE_FIELD)
            raise ImageTooLarge(f"{self._name()} exceeds 1 MiB of JSON; send the image as a file")

    def _next_row(self, position: int) -> tuple[Any, re.Match[str]] | None:
        """Return the next row and the separator after it, or None if the row is incomplete."""
        position = _SPACE.match(self._text, position).end()  # type: ignore[union-attr]
        try:
            row, end = _DECODER.raw_decode(self._text, position)
        except json.JSONDecodeError as error:
            if self._text.startswith("]", position) and not self._rows:
                raise InvalidImage(f"'{FIELD}' contains no rows") from None
            if error.pos < len(self._text) - _LONGEST_LITERAL:
                raise self._syntax_error(error.msg) from None
            return None
        except RecursionError:
            raise InvalidImage(_SHAPE) from None
        except ValueError:  # an integer of thousands of digits
            raise self._row_error(_ABOVE) from None
        separator = _SEPARATOR.match(self._text, end)
        if separator is None and self._text[end:].strip():
            raise self._syntax_error("expected ',' or ']' after the row")
        return (row, separator) if separator else None

    def _add(self, row: Any) -> None:
        if not isinstance(row, list) or not row:
            raise self._row_error("must be a list of pixels")
        if not self._rows:
            self._set_shape(row)
        if len(row) != self._width:
            raise self._row_error(f"has {len(row)} pixels, but the first row has {self._width}")
        if self._channels:
            if set(map(type, row)) != {list} or set(map(len, row)) != {self._channels}:
                raise self._row_error(
                    f"must contain pixels of {self._channels} numbers each, like the first pixel"
                )
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
                raise self._row_error("must contain only true and false, like the first pixel")
            self._levels += bytes(numbers).translate(_UNIT)
            self._unit_levels = None
            return
        if not kinds <= {int, float}:
            raise self._row_error("must contain only numbers")
        try:
            if kinds == {int}:
                levels = bytes(numbers)
                largest, unit = float(max(levels)), levels.translate(_UNIT)
            else:
                levels, largest, unit = self._float_levels(np.array(numbers, np.float64))
        except (ValueError, OverflowError):
            raise self._row_error(_BELOW if min(numbers) < 0 else _ABOVE) from None
        self._levels += levels
        self._largest = max(self._largest, largest)
        if self._largest > 1:
            self._unit_levels = None
        elif self._unit_levels is not None:
            self._unit_levels += unit

    def _float_levels(self, numbers: np.ndarray) -> tuple[bytes, float, bytes]:
        """Return the levels for the range 0 to 255, the largest number, and the levels for the range 0 to 1.

        Raises ValueError.
        """
        largest = float(numbers.max())
        if not (numbers.min() >= 0 and largest <= 255):
            raise ValueError("out of range")
        self._floats = True
        self._fractions = self._fractions or bool((numbers != np.rint(numbers)).any())
        unit = np.rint(255 * np.minimum(numbers, 1)).astype(np.uint8)
        return np.rint(numbers).astype(np.uint8).tobytes(), largest, unit.tobytes()

    def _choose_levels(self) -> bytearray:
        """Return the levels for the range of the pixels: 0 to 255 for integers, 0 to 255 or 0 to 1 for floats.

        Raises InvalidImage if the range of floats is ambiguous.
        """
        if not self._floats or self._largest == 0 or self._largest >= MAX_AMBIGUOUS:
            return self._levels
        if self._unit_levels is not None and self._fractions:
            return self._unit_levels
        raise InvalidImage(
            f"the floats of '{FIELD}' range from 0 to {self._largest:g}, so white may be 1 or 255; "
            f"send integers from 0 to 255"
        )

    def _name(self) -> str:
        return f"{FIELD}[{self._rows}]"

    def _row_error(self, what: str) -> HandlerError:
        return InvalidImage(f"{self._name()} {what}. {_SHAPE}")

    def _syntax_error(self, what: str) -> HandlerError:
        return InvalidRequest(f"the body is not valid JSON: {self._name()}: {what}")


def _problem(text: str) -> HandlerError:
    """Return the error for a short body that does not start with a list of pixels."""
    if not text.strip():
        return InvalidRequest(f"the body is empty; {_ONE_FIELD}")
    try:
        message = parse_json(text)
    except InvalidRequest as error:
        return InvalidRequest(f"{error.message}; {_ONE_FIELD}")
    if not isinstance(message, dict) or message.keys() != {FIELD}:
        return InvalidRequest(_ONE_FIELD)
    return InvalidImage(_SHAPE)
