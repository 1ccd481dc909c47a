"""Compressed bodies (`Content-Encoding`), decompressed within bounds."""

import zlib
from typing import Any

from handlers.core.errors import InvalidRequest, TooLarge

MAX_DECOMPRESSED_BYTES = 16 * 2**20
"""As a body that is not compressed (max_request_size in config.properties)."""
ENCODINGS = ("gzip", "deflate")
_CHUNK_BYTES = 2**18
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


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
        raise InvalidRequest(
            f"the Content-Encoding {encoding[:40]!r} is not supported; use gzip or deflate, or send it uncompressed"
        )
    if not isinstance(body, bytes | bytearray):
        raise InvalidRequest(
            "TorchServe decodes the body of this Content-Type before it is decompressed; send it uncompressed"
        )
    try:
        return _inflate(body, _GZIP_OR_ZLIB)
    except zlib.error as error:
        try:
            return _inflate(body, -zlib.MAX_WBITS)  # deflate without zlib's header, as some clients send it
        except zlib.error:
            raise InvalidRequest(f"the body is not {name}, as its Content-Encoding says ({error})") from None


def decompressed_size(body: bytes | bytearray, encoding: str) -> int:
    """How many bytes `decompress` would give, without keeping them. Raises what `decompress` raises."""
    if encoding.strip().lower() not in ENCODINGS:
        return len(decompress(body, encoding))
    inflating = zlib.decompressobj(_GZIP_OR_ZLIB)
    size, left = 0, bytes(body)
    try:
        while left and not inflating.eof and size <= MAX_DECOMPRESSED_BYTES:
            size += len(inflating.decompress(left, _CHUNK_BYTES))
            left = inflating.unconsumed_tail
    except zlib.error:
        return len(decompress(body, encoding))  # deflate without zlib's header, or no compressed body
    if size > MAX_DECOMPRESSED_BYTES:
        raise _too_large()
    return size


def _inflate(body: bytes | bytearray, window_bits: int) -> bytes:
    inflating = zlib.decompressobj(window_bits)
    content = inflating.decompress(body, MAX_DECOMPRESSED_BYTES + 1)
    if len(content) > MAX_DECOMPRESSED_BYTES:
        raise _too_large()
    if not inflating.eof:
        raise InvalidRequest("the compressed body is incomplete")
    if inflating.unused_data:
        raise InvalidRequest("there are further bytes after the compressed body")
    return content


def _too_large() -> TooLarge:
    return TooLarge(f"the body is larger than {MAX_DECOMPRESSED_BYTES >> 20} MiB when decompressed")
