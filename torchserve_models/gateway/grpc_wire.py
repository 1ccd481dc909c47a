"""gRPC's unary messages over HTTP/1.1: nginx ends HTTP/2, and turns two headers of an answer into gRPC's trailers.

The names and numbers are those of https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import re
from enum import IntEnum
from urllib.parse import quote

from starlette.responses import Response

from handlers.core.compression import decompress, decompressed_size
from handlers.core.errors import HandlerError, InvalidParameter, InvalidRequest, TooLarge
from torchserve_models.client import Timeout, TorchServeError

CONTENT_TYPE = "application/grpc"
FRAME_BYTES = 5
"""Before a message: whether it is compressed, and its length."""
STATUS_HEADER, MESSAGE_HEADER = "X-Grpc-Status", "X-Grpc-Message"
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Status(IntEnum):
    """Of gRPC."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


_BY_CODE = {
    400: Status.INVALID_ARGUMENT,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    408: Status.DEADLINE_EXCEEDED,
    413: Status.INVALID_ARGUMENT,
    429: Status.RESOURCE_EXHAUSTED,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
    507: Status.RESOURCE_EXHAUSTED,
}


def read_frame(body: bytearray, encoding: str) -> bytes:
    """Return the one message of a call, decompressed; `body` is emptied. Raises InvalidRequest or TooLarge."""
    if len(body) < FRAME_BYTES or int.from_bytes(body[1:FRAME_BYTES], "big") != len(body) - FRAME_BYTES:
        raise InvalidRequest("the body is not one gRPC message")
    compressed = body[0] == 1
    message = bytes(memoryview(body)[FRAME_BYTES:])
    body.clear()
    content: bytes = decompress(message, encoding) if compressed else message
    return content


def message_size(body: bytearray, encoding: str) -> int:
    """Bytes of a call's message: as it came, or decompressed if that is more. Raises InvalidRequest or TooLarge."""
    received = max(0, len(body) - FRAME_BYTES)
    if not body or body[0] == 0:
        return received
    return max(received, decompressed_size(bytes(memoryview(body)[FRAME_BYTES:]), encoding))


def seconds_of(timeout: str) -> float:
    """The value of the header grpc-timeout. Raises InvalidParameter."""
    found = _TIMEOUT.fullmatch(timeout)
    if found is None:
        raise InvalidParameter(f"the header grpc-timeout must be a number and a unit, not {timeout[:20]!r}")
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def answer(message: bytes) -> Response:
    """The answer of a call that succeeded."""
    frame = b"\0" + len(message).to_bytes(4, "big") + message
    return Response(frame, headers={STATUS_HEADER: str(int(Status.OK))}, media_type=CONTENT_TYPE)


def failure(error: Exception) -> Response:
    """The answer for an error of the handlers' tree, of the client's, or of starlette's (which has `status_code`)."""
    code: int | None
    if type(error) is TooLarge:  # the message; an input that is too large for its model is INVALID_ARGUMENT
        return refuse(Status.RESOURCE_EXHAUSTED, error.message)
    if isinstance(error, HandlerError | TorchServeError):
        code, message = error.code, error.message
        if code is None:  # there was no answer of TorchServe's
            code = 504 if isinstance(error, Timeout) else 502
    elif hasattr(error, "status_code"):
        code, message = error.status_code, str(getattr(error, "detail", ""))
    else:
        code, message = 500, "internal error; the gateway's log has the details"
    return refuse(_BY_CODE.get(code, Status.INTERNAL), message)


def refuse(status: Status, message: str) -> Response:
    headers = {STATUS_HEADER: str(int(status)), MESSAGE_HEADER: _percent_encoded(message)}
    return Response(b"", headers=headers, media_type=CONTENT_TYPE)


def _percent_encoded(message: str) -> str:
    """As grpc-message has it: printable ASCII as it is, but for the percent sign."""
    return quote(
        message[:2000].strip().encode("utf-8", "backslashreplace"), safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
    )
