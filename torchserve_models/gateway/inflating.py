"""Decompress a body (`Content-Encoding`) piece by piece, within a bound, while it arrives."""

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
"""More than enough to tell deflate without zlib's header from deflate with it."""


async def inflated(pieces: AsyncIterator[bytes], encoding: str, max_bytes: int) -> AsyncIterator[bytes]:
    """The pieces without the compression that the header Content-Encoding names.

    Raises:
        InvalidRequest: The encoding is unknown, the body is not in it, or it is incomplete.
        TooLarge: It has more than `max_bytes` when decompressed.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        async for piece in pieces:
            yield piece
        return
    if name not in ENCODINGS:
        raise unsupported(encoding)
    size = 0
    try:
        async for content in _inflate(pieces):
            size += len(content)
            if size > max_bytes:
                raise too_large(max_bytes)
            yield content
    except zlib.error as error:
        raise not_compressed(name, error) from None


async def _inflate(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    inflater = _Inflater()
    async for piece in pieces:
        for content in inflater.feed(piece):
            yield content
    for content in inflater.finish():
        yield content


class _Inflater:
    def __init__(self) -> None:
        self._inflating = zlib.decompressobj(GZIP_OR_ZLIB)
        self._head: bytes | None = b""
        """What was fed until the kind of compression was certain, then None."""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Raises zlib.error and InvalidRequest."""
        while piece:
            if self._inflating.eof:
                raise trailing_bytes()
            try:
                content = self._inflating.decompress(piece, CHUNK_BYTES)
            except zlib.error:
                if self._head is None:
                    raise
                self._inflating, piece, self._head = zlib.decompressobj(RAW_DEFLATE), self._head + piece, None
                continue
            if self._head is not None:
                is_certain = content or len(self._head) > MAX_HEAD_BYTES
                self._head = None if is_certain else self._head + piece
            yield content
            piece = self._inflating.unconsumed_tail or self._inflating.unused_data

    def finish(self) -> Iterator[bytes]:
        """What zlib still holds. Raises zlib.error and InvalidRequest."""
        while not self._inflating.eof:
            content = self._inflating.decompress(b"", CHUNK_BYTES)
            if not content:
                raise incomplete_body()
            yield content
