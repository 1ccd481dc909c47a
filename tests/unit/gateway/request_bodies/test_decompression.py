"""Compressed bodies are decompressed while they arrive, and never to more than their limit."""

import gzip
import random
import zlib

import pytest

from handlers.core.compression import CHUNK_BYTES
from handlers.core.errors import InvalidRequest, TooLarge
from torchserve_models.gateway.request_bodies import decompression
from torchserve_models.gateway.request_bodies.decompression import decompress_chunks

CONTENT = random.Random(3).randbytes(50_000) + bytes(3 * CHUNK_BYTES)
RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
COMPRESSED = {
    "": CONTENT,
    "identity": CONTENT,
    "gzip": gzip.compress(CONTENT),
    " GZIP": gzip.compress(CONTENT),
    "deflate": zlib.compress(CONTENT),
}
WITHOUT_HEADER = RAW.compress(CONTENT) + RAW.flush()


async def chunks(body, size):
    for at in range(0, len(body), size):
        yield body[at : at + size]


async def read(body, encoding, size=1000, max_bytes=2**20):
    return b"".join([chunk async for chunk in decompress_chunks(chunks(body, size), encoding, max_bytes)])


@pytest.mark.parametrize("size", [1, 7, 1000, 2**20])
@pytest.mark.parametrize("encoding", COMPRESSED)
async def test_content_is_decompressed_completely(encoding, size):
    assert await read(COMPRESSED[encoding], encoding, size) == CONTENT


@pytest.mark.parametrize("size", [1, 2, 1000])
async def test_raw_deflate_data_is_decompressed(size):
    assert await read(WITHOUT_HEADER, "deflate", size) == CONTENT


@pytest.mark.parametrize(
    ("body", "encoding", "error", "message"),
    [
        (b"", "gzip", InvalidRequest, "truncated"),
        (gzip.compress(b"a", mtime=0)[:-1], "gzip", InvalidRequest, "truncated"),
        (gzip.compress(b"a", mtime=0) + b"b", "gzip", InvalidRequest, "further bytes"),
        (b'{"img": [[1]]}', "gzip", InvalidRequest, "the body is not valid gzip, its Content-Encoding"),
        (b"a", "br", InvalidRequest, "the Content-Encoding 'br' is not supported; use gzip or deflate"),
        (gzip.compress(bytes(2**20 + 1), mtime=0), "gzip", TooLarge, "larger than 1 MiB when decompressed"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
async def test_invalid_body_is_rejected(body, encoding, error, message, size):
    with pytest.raises(error, match=message):
        await read(body, encoding, size)


async def test_decompressed_chunks_are_bounded():
    sizes = [
        len(chunk)
        async for chunk in decompress_chunks(chunks(gzip.compress(bytes(2**24)), 2**20), "gzip", 2**24)
    ]
    assert sum(sizes) == 2**24
    assert max(sizes) <= CHUNK_BYTES


async def test_deflate_data_that_ends_with_a_full_chunk_is_complete():
    for length in range(CHUNK_BYTES - 5, CHUNK_BYTES + 300, 7):
        deflating = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = deflating.compress(b"a" * length) + deflating.flush()
        assert len(await read(body, "deflate", 2**20)) == length


async def test_endless_header_is_not_buffered():
    """The file name in a gzip header may be as long as the body."""
    body = b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * (64 * 4096)
    decompressor = decompression._Decompressor()
    for at in range(0, len(body), 4096):
        list(decompressor.feed(body[at : at + 4096]))
    assert decompressor._head is None
