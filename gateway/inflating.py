"""Decompress a body (`Content-Encoding`) piece by piece, within a bound, while it arrives."""

import zlib
from collections.abc import AsyncIterator, Iterator

from handlers.core.compression import ENCODINGS
from handlers.core.errors import InvalidRequest, TooLarge

CHUNK_BYTES = 2**18
"""Most that is decompressed at a time."""
_GZIP_OR_ZLIB, _RAW = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS


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
        raise InvalidRequest(
            f"the Content-Encoding {encoding[:40]!r} is not supported; use gzip or deflate, or send it uncompressed"
        )
    inflater, size = _Inflater(), 0
    try:
        async for piece in pieces:
            for content in inflater.feed(piece):
                size += len(content)
                if size > max_bytes:
                    raise TooLarge(f"the body is larger than {max_bytes >> 20} MiB when decompressed")
                yield content
    except zlib.error as error:
        raise InvalidRequest(f"the body is not {name}, as its Content-Encoding says ({error})") from None
    inflater.finish()


class _Inflater:
    def __init__(self) -> None:
        self._inflating = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._head: bytes | None = b""
        """What was fed until the kind of compression was certain, then None."""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Raises zlib.error and InvalidRequest."""
        while piece:
            if self._inflating.eof:
                raise InvalidRequest("there are further bytes after the compressed body")
            try:
                content = self._inflating.decompress(piece, CHUNK_BYTES)
            except zlib.error:
                if self._head is None:
                    raise
                # deflate without zlib's header, as some clients send it
                self._inflating, piece, self._head = zlib.decompressobj(_RAW), self._head + piece, None
                continue
            if self._head is not None:
                self._head = None if content else self._head + piece
            yield content
            piece = self._inflating.unconsumed_tail or self._inflating.unused_data

    def finish(self) -> None:
        """Raises InvalidRequest."""
        if not self._inflating.eof:
            raise InvalidRequest("the compressed body is incomplete")
