"""How much structure a ModelInferRequest may have, so that parsing it takes a bounded multiple of its bytes.

A submessage of two bytes takes a hundred when it is parsed, and a number of one byte up to eight.
"""

from collections.abc import Mapping

from handlers.core.errors import InvalidRequest, TooLarge, TooManyItems

MAX_FIELDS = 20_000
"""Of a message and its submessages: inputs, parameters, elements of BYTES."""
MAX_NUMBER_BYTES = 4 * 2**20
"""Of numbers in `contents`; `raw_input_contents` are not bounded, as they are not parsed."""

Layout = Mapping[int, "Layout"]
_CONTENTS: Layout = {}
_PARAMETERS: Layout = {2: {}}
_REQUEST: Layout = {4: _PARAMETERS, 5: {4: _PARAMETERS, 5: _CONTENTS}, 6: {2: _PARAMETERS}}
_BYTES_CONTENTS = 8
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def check_bounds(message: bytes) -> None:
    """Walk over the fields without parsing their values.

    Raises:
        InvalidRequest: It is not a protobuf message.
        TooManyItems: It has more than MAX_FIELDS fields.
        TooLarge: Its numbers have more than MAX_NUMBER_BYTES.
    """
    left = [(0, len(message), _REQUEST)]
    fields = number_bytes = 0
    while left:
        start, end, layout = left.pop()
        while start < end:
            fields += 1
            if fields > MAX_FIELDS:
                raise TooManyItems(
                    f"the message has more than {MAX_FIELDS} fields; send tensors in raw_input_contents"
                )
            key, start = _varint(message, start, end)
            number, wire_type = key >> 3, key & 7
            value = start
            start = _end_of(message, start, end, wire_type)
            if wire_type == _LENGTH:
                _, value = _varint(message, value, end)
                if number in layout:
                    left.append((value, start, layout[number]))
            if layout is _CONTENTS and number != _BYTES_CONTENTS:
                number_bytes += start - value
    if number_bytes > MAX_NUMBER_BYTES:
        raise TooLarge(
            f"the numbers in 'contents' take more than {MAX_NUMBER_BYTES >> 20} MiB; send raw_input_contents"
        )


def _end_of(message: bytes, start: int, end: int, wire_type: int) -> int:
    """Where the value ends that begins at `start`."""
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
    """A variable-length integer and where it ends."""
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
    return InvalidRequest("the message is not a ModelInferRequest")
