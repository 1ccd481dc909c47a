"""Limit the structure of a request message, so that the memory for parsing it is a bounded multiple of its size.

Once parsed, a submessage of two bytes takes about a hundred, and a one-byte number up to eight.
"""

from collections.abc import Mapping

from handlers.core.errors import InvalidRequest, TooLarge, TooManyItems

MAX_FIELDS = 20_000
"""Fields of a message and its submessages: inputs, parameters, BYTES elements."""
MAX_NUMBER_BYTES = 4 * 2**20
"""Encoded numbers in `contents`. `raw_input_contents` are not limited, because they are not parsed."""

Layout = Mapping[int, "Layout"]
_CONTENTS: Layout = {}
_PARAMETERS: Layout = {2: {}}
MODEL_INFER_REQUEST: Layout = {4: _PARAMETERS, 5: {4: _PARAMETERS, 5: _CONTENTS}, 6: {2: _PARAMETERS}}
"""The submessages of a message that are checked, by field number."""
PREDICTIONS_REQUEST: Layout = {3: {}}
_BYTES_CONTENTS = 8
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def check_bounds(message: bytes, layout: Layout) -> None:
    """Check the limits of a serialized message without parsing the values of its fields.

    Args:
        message: The message.
        layout: MODEL_INFER_REQUEST or PREDICTIONS_REQUEST.

    Raises:
        InvalidRequest: The bytes are not a protobuf message.
        TooManyItems: The message has more than MAX_FIELDS fields.
        TooLarge: The numbers take more than MAX_NUMBER_BYTES.
    """
    pending = [(0, len(message), layout)]
    fields = number_bytes = 0
    while pending:
        start, end, layout = pending.pop()
        while start < end:
            fields += 1
            if fields > MAX_FIELDS:
                raise TooManyItems(
                    f"the message has more than {MAX_FIELDS} fields; send large inputs as bytes"
                )
            key, start = _varint(message, start, end)
            number, wire_type = key >> 3, key & 7
            value = start
            start = _find_end(message, start, end, wire_type)
            if wire_type == _LENGTH:
                _, value = _varint(message, value, end)
                if number in layout:
                    pending.append((value, start, layout[number]))
            if layout is _CONTENTS and number != _BYTES_CONTENTS:
                number_bytes += start - value
    if number_bytes > MAX_NUMBER_BYTES:
        raise TooLarge(
            f"the numbers in 'contents' exceed {MAX_NUMBER_BYTES >> 20} MiB; send raw_input_contents"
        )


def _find_end(message: bytes, start: int, end: int, wire_type: int) -> int:
    """Return the end of the value that begins at `start`."""
    if wire_type == _VARINT:
        return _varint(message, start, end)[1]
    if wire_type == _FIXED64:
        stop = start + 8
    elif wire_type == _FIXED32:
        stop = start + 4
    elif wire_type == _LENGTH:
        length, start = _varint(message, start, end)
        stop = start + length
    else:
        raise _malformed()
    if stop > end:
        raise _malformed()
    return stop


def _varint(message: bytes, start: int, end: int) -> tuple[int, int]:
    """Return a variable-length integer and its end."""
    value = shift = 0
    while start < end and shift < 70:
        byte = message[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
    raise _malformed()


def _malformed() -> InvalidRequest:
    return InvalidRequest("the message is not a valid protobuf message of this method")
