"""gRPC messages over HTTP/1.1: nginx terminates HTTP/2 and converts the response's status headers to gRPC trailers.

Names and numbers are those of https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import re
from collections.abc import AsyncIterator
from enum import IntEnum
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from handlers.core.compression import decompress, decompressed_size
from handlers.core.errors import HandlerError, InvalidParameter, InvalidRequest, TooLarge
from torchserve_models.client import Timeout, TorchServeError
from torchserve_models.gateway.responses import RETRY_AFTER_S

CONTENT_TYPE = "application/grpc"
FRAME_BYTES = 5
"""The prefix of a message: a compression flag and the length."""
STATUS_HEADER, MESSAGE_HEADER = "X-Grpc-Status", "X-Grpc-Message"
TYPE_HEADER, CODE_HEADER = "X-Error-Type", "X-Error-Code"
"""Trailers with the type and code that the error has over REST, which a gRPC status does not identify."""
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class GrpcStatus(IntEnum):
    """A gRPC status code."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_STATUS_BY_HTTP_CODE = {
    400: GrpcStatus.INVALID_ARGUMENT,
    401: GrpcStatus.UNAUTHENTICATED,
    403: GrpcStatus.PERMISSION_DENIED,
    404: GrpcStatus.NOT_FOUND,
    408: GrpcStatus.DEADLINE_EXCEEDED,
    413: GrpcStatus.INVALID_ARGUMENT,
    429: GrpcStatus.RESOURCE_EXHAUSTED,
    502: GrpcStatus.UNAVAILABLE,
    503: GrpcStatus.UNAVAILABLE,
    504: GrpcStatus.DEADLINE_EXCEEDED,
    507: GrpcStatus.RESOURCE_EXHAUSTED,
}


def read_frame(body: bytearray, encoding: str) -> bytes:
    """Return the decompressed message, and clear `body` to free its memory. Raises InvalidRequest or TooLarge."""
    if len(body) < FRAME_BYTES or int.from_bytes(body[1:FRAME_BYTES], "big") != len(body) - FRAME_BYTES:
        raise InvalidRequest("the body must be exactly one gRPC message")
    compressed = body[0] == 1
    message = bytes(memoryview(body)[FRAME_BYTES:])
    body.clear()
    content: bytes = decompress(message, encoding) if compressed else message
    return content


def message_size(body: bytearray, encoding: str) -> int:
    """Return the message's received size or its decompressed size, whichever is larger.

    Raises InvalidRequest or TooLarge.
    """
    received = max(0, len(body) - FRAME_BYTES)
    if not body or body[0] == 0:
        return received
    return max(received, decompressed_size(bytes(memoryview(body)[FRAME_BYTES:]), encoding))


def parse_timeout_s(timeout: str) -> float:
    """Return the value of the header grpc-timeout in seconds. Raises InvalidParameter."""
    match = _TIMEOUT.fullmatch(timeout)
    if match is None:
        raise InvalidParameter(
            f"the header grpc-timeout must be 1 to 8 digits and a unit (H, M, S, m, u or n), not {timeout[:20]!r}"
        )
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def message_response(message: bytes) -> Response:
    """Return the response of a successful call."""
    return Response(
        _frame(message), headers={STATUS_HEADER: str(int(GrpcStatus.OK))}, media_type=CONTENT_TYPE
    )


def stream_response(messages: AsyncIterator[bytes]) -> Response:
    """Return the response of a call that streams. An exception of `messages` breaks the stream off."""
    frames = (_frame(message) async for message in messages)
    return StreamingResponse(
        frames, headers={STATUS_HEADER: str(int(GrpcStatus.OK))}, media_type=CONTENT_TYPE
    )


def error_response(error: Exception) -> Response:
    """Return the response to an error of the handlers, of the client, or of Starlette (with `status_code`)."""
    code: int | None
    type_, was_retried = "", False
    if isinstance(error, HandlerError | TorchServeError):
        code, message, type_ = error.code, error.message, error.type or type(error).__name__
        was_retried = getattr(error, "retried", False)
        if code is None:  # TorchServe did not respond
            code = 504 if isinstance(error, Timeout) else 503
    elif hasattr(error, "status_code"):
        code, message = error.status_code, str(getattr(error, "detail", ""))
    else:
        code, message = 500, "internal error; the gateway's log has the details"
        type_ = "InternalError"
    # The message is too large; subclasses of TooLarge, for inputs, are INVALID_ARGUMENT.
    is_message = type(error) is TooLarge
    status = (
        GrpcStatus.RESOURCE_EXHAUSTED if is_message else _STATUS_BY_HTTP_CODE.get(code, GrpcStatus.INTERNAL)
    )
    response = status_response(status, message)
    if type_:
        response.headers[TYPE_HEADER] = type_
        response.headers[CODE_HEADER] = str(code)
    if code in (429, 503):
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    if was_retried:
        response.headers["X-Retried"] = "1"
    return response


def status_response(status: GrpcStatus, message: str) -> Response:
    """Return the response of a failed call."""
    headers = {STATUS_HEADER: str(int(status)), MESSAGE_HEADER: _percent_encoded(message)}
    return Response(b"", headers=headers, media_type=CONTENT_TYPE)


def _frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def _percent_encoded(message: str) -> str:
    """Encode a message for grpc-message: everything but printable ASCII, and the percent sign."""
    return quote(
        message[:2000].strip().encode("utf-8", "backslashreplace"), safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
    )
