"""Compressed bodies (`Content-Encoding`), decompressed within bounds."""

import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from handlers.core.errors import InvalidRequest, TooLarge

T = TypeVar("T")

MAX_DECOMPRESSED_BYTES = 16 * 2**20
"""As a body that is not compressed (max_request_size in config.properties)."""
ENCODINGS = ("gzip", "deflate")
CHUNK_BYTES = 2**18
"""Most that is decompressed at a time where it is not kept."""
GZIP_OR_ZLIB, RAW_DEFLATE = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS
"""Window bits of zlib. Some clients send deflate without zlib's header."""


def decompress(body: Any, encoding: str) -> Any:
    """`body` without the compression that the header Content-Encoding names.

    Raises:
        InvalidRequest: The encoding is unknown, the body is not in it, or it is incomplete.
        TooLarge: It has more than MAX_DECOMPRESSED_BYTES.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ENCODINGS:
        raise unsupported(encoding)
    if not isinstance(body, bytes | bytearray):
        raise InvalidRequest(
            "TorchServe decodes the body of this Content-Type before it is decompressed; send it uncompressed"
        )
    return _with_either_header(_inflate, body, name)


def decompressed_size(body: bytes | bytearray, encoding: str) -> int:
    """How many bytes `decompress` would give, without keeping them.

    Raises what `decompress` raises, except for a body that is cut off or has more behind it.
    """
    name = encoding.strip().lower()
    if name not in ENCODINGS:
        return len(decompress(body, encoding))
    return _with_either_header(_size, body, name)


def _with_either_header(read: Callable[[bytes | bytearray, int], T], body: bytes | bytearray, name: str) -> T:
    """Call `read` with the window bits that fit the body. Raises InvalidRequest where none do."""
    try:
        return read(body, GZIP_OR_ZLIB)
    except zlib.error as error:
        try:
            return read(body, RAW_DEFLATE)
        except zlib.error:
            raise not_compressed(name, error) from None


def unsupported(encoding: str) -> InvalidRequest:
    return InvalidRequest(
        f"the Content-Encoding {encoding[:40]!r} is not supported; use gzip or deflate, or send it uncompressed"
    )


def not_compressed(name: str, error: zlib.error) -> InvalidRequest:
    return InvalidRequest(f"the body is not {name}, as its Content-Encoding says ({error})")


def incomplete_body() -> InvalidRequest:
    return InvalidRequest("the compressed body is incomplete")


def trailing_bytes() -> InvalidRequest:
    return InvalidRequest("there are further bytes after the compressed body")


def too_large(max_bytes: int = MAX_DECOMPRESSED_BYTES) -> TooLarge:
    return TooLarge(f"the body is larger than {max_bytes >> 20} MiB when decompressed")


def _size(body: bytes | bytearray, window_bits: int) -> int:
    """Raises zlib.error and TooLarge."""
    inflating = zlib.decompressobj(window_bits)
    size, left = 0, bytes(body)
    while left and not inflating.eof:
        size += len(inflating.decompress(left, CHUNK_BYTES))
        if size > MAX_DECOMPRESSED_BYTES:
            raise too_large()
        left = inflating.unconsumed_tail
    return size


def _inflate(body: bytes | bytearray, window_bits: int) -> bytes:
    inflating = zlib.decompressobj(window_bits)
    content = inflating.decompress(body, MAX_DECOMPRESSED_BYTES + 1)
    if len(content) > MAX_DECOMPRESSED_BYTES:
        raise too_large()
    if not inflating.eof:
        raise incomplete_body()
    if inflating.unused_data:
        raise trailing_bytes()
    return content
