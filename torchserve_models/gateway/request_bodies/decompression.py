"""Decompress a body (`Content-Encoding`) in chunks while it arrives, up to a size limit."""

import zlib
from collections.abc import AsyncIterator, Iterator

from handlers.core.compression import (
    CHUNK_BYTES,
    ENCODINGS,
    GZIP_OR_ZLIB,
    RAW_DEFLATE,
    incomplete_body,
    not_compressed,
    too_large,
    trailing_bytes,
    unsupported,
)

MAX_HEAD_BYTES = 4096
"""Bytes that suffice to distinguish raw deflate data from deflate data with a zlib header."""


async def decompress_chunks(
    chunks: AsyncIterator[bytes], encoding: str, max_bytes: int
) -> AsyncIterator[bytes]:
    """Yield the decompressed chunks of a body with the Content-Encoding `encoding`.

    Raises:
        InvalidRequest: The encoding is unknown, or the body is invalid or incomplete in this encoding.
        TooLarge: The decompressed body exceeds `max_bytes`.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        async for chunk in chunks:
            yield chunk
        return
    if name not in ENCODINGS:
        raise unsupported(encoding)
    size = 0
    try:
        async for content in _decompress(chunks):
            size += len(content)
            if size > max_bytes:
                raise too_large(max_bytes)
            yield content
    except zlib.error as error:
        raise not_compressed(name, error) from None


async def _decompress(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    decompressor = _Decompressor()
    async for chunk in chunks:
        for content in decompressor.feed(chunk):
            yield content
    for content in decompressor.finish():
        yield content


class _Decompressor:
    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(GZIP_OR_ZLIB)
        self._head: bytes | None = b""
        """The bytes fed while zlib or raw deflate data are both possible; None once the format is known."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the decompressed bytes of a chunk. Raises zlib.error and InvalidRequest."""
        while chunk:
            if self._zlib.eof:
                raise trailing_bytes()
            try:
                content = self._zlib.decompress(chunk, CHUNK_BYTES)
            except zlib.error:
                if self._head is None:
                    raise
                self._zlib, chunk, self._head = zlib.decompressobj(RAW_DEFLATE), self._head + chunk, None
                continue
            if self._head is not None:
                is_certain = content or len(self._head) > MAX_HEAD_BYTES
                self._head = None if is_certain else self._head + chunk
            yield content
            chunk = self._zlib.unconsumed_tail or self._zlib.unused_data

    def finish(self) -> Iterator[bytes]:
        """Yield the bytes that zlib still buffers. Raises zlib.error and InvalidRequest."""
        while not self._zlib.eof:
            content = self._zlib.decompress(b"", CHUNK_BYTES)
            if not content:
                raise incomplete_body()
            yield content
