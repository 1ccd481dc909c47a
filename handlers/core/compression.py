"""Decompress request bodies (`Content-Encoding`) up to a size limit."""

import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from handlers.core.errors import InvalidRequest, TooLarge

T = TypeVar("T")

MAX_DECOMPRESSED_BYTES = 16 * 2**20
"""Maximum size of a decompressed body, the same as that of any body (max_request_size in config.properties)."""
ENCODINGS = ("gzip", "deflate")
CHUNK_BYTES = 2**18
"""Bytes that are decompressed at a time to count them."""
GZIP_OR_ZLIB, RAW_DEFLATE = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS
"""Values of zlib's `wbits`. Some clients send deflate without the zlib header."""


def decompress(body: Any, encoding: str) -> Any:
    """Return the decompressed body.

    Raises:
        InvalidRequest: The encoding is not supported, or the body is incomplete or not in this encoding.
        TooLarge: The decompressed body has more than MAX_DECOMPRESSED_BYTES.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ENCODINGS:
        raise unsupported(encoding)
    if not isinstance(body, bytes | bytearray):
        raise InvalidRequest(
            "a body of this Content-Type cannot be compressed, because TorchServe parses it first; send it "
            "uncompressed"
        )
    return _with_either_header(_inflate, body, name)


def decompressed_size(body: bytes | bytearray, encoding: str) -> int:
    """Return the size of the decompressed body in bytes, without keeping the body in memory.

    Raises what `decompress` raises, except that it accepts a body that is truncated or followed by further bytes.
    """
    name = encoding.strip().lower()
    if name not in ENCODINGS:
        return len(decompress(body, encoding))
    return _with_either_header(_size, body, name)


def _with_either_header(read: Callable[[bytes | bytearray, int], T], body: bytes | bytearray, name: str) -> T:
    """Call `read` with the window bits that fit the body. Raises InvalidRequest if none do."""
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
    return InvalidRequest(f"the body is not valid {name}, its Content-Encoding ({error})")


def incomplete_body() -> InvalidRequest:
    return InvalidRequest("the compressed body is truncated")


def trailing_bytes() -> InvalidRequest:
    return InvalidRequest("the compressed body is followed by further bytes; remove them")


def too_large(max_bytes: int = MAX_DECOMPRESSED_BYTES) -> TooLarge:
    return TooLarge(f"the body is larger than {max_bytes >> 20} MiB when decompressed")


def _size(body: bytes | bytearray, window_bits: int) -> int:
    """Return the decompressed size in bytes. Raises zlib.error and TooLarge."""
    decompressor = zlib.decompressobj(window_bits)
    size, remaining = 0, bytes(body)
    while remaining and not decompressor.eof:
        size += len(decompressor.decompress(remaining, CHUNK_BYTES))
        if size > MAX_DECOMPRESSED_BYTES:
            raise too_large()
        remaining = decompressor.unconsumed_tail
    return size


def _inflate(body: bytes | bytearray, window_bits: int) -> bytes:
    decompressor = zlib.decompressobj(window_bits)
    content = decompressor.decompress(body, MAX_DECOMPRESSED_BYTES + 1)
    if len(content) > MAX_DECOMPRESSED_BYTES:
        raise too_large()
    if not decompressor.eof:
        raise incomplete_body()
    if decompressor.unused_data:
        raise trailing_bytes()
    return content
