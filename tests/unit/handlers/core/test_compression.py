"""Tests of bodies with a Content-Encoding: decompression, errors and size limits."""

import gzip
import json
import zlib

import pytest

from handlers.core import compression
from handlers.core.compression import MAX_DECOMPRESSED_BYTES, decompress, decompressed_size
from handlers.core.errors import InvalidRequest, TooLarge
from handlers.core.request import RequestParser
from handlers.core.request_content import ParserSettings
from tests.unit.handlers.sending import HTTP, JSON, OPEN_INFERENCE

SETTINGS = ParserSettings("net", "1", ("text",), 4)
TEXT = b"Rain fell in the mountains. " * 20


def raw_deflate(content):
    compressing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressing.compress(content) + compressing.flush()


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP ", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
        ("", bytes),
    ],
)
def test_compressed_body_is_decompressed(encoding, compress):
    assert decompress(bytearray(compress(TEXT)), encoding) == TEXT


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        (b"x", "br", "'br' is not supported; use gzip or deflate"),
        (b"x", "gzip, gzip", "not supported"),
        (TEXT, "gzip", "the body is not valid gzip"),
        (b"", "gzip", "truncated"),
        (gzip.compress(TEXT, mtime=0)[:-9], "gzip", "truncated"),
        (gzip.compress(TEXT, mtime=0) + b"more", "gzip", "further bytes"),
        (TEXT.decode(), "gzip", "send it uncompressed"),
    ],
)
def test_invalid_compressed_body_is_rejected(body, encoding, words):
    with pytest.raises(InvalidRequest) as caught:
        decompress(body, encoding)
    assert words in caught.value.message


def test_decompression_bomb_is_rejected_without_being_decompressed():
    limit = b"\0" * MAX_DECOMPRESSED_BYTES
    assert len(decompress(zlib.compress(limit), "deflate")) == MAX_DECOMPRESSED_BYTES
    with pytest.raises(TooLarge, match="larger than 16 MiB when decompressed"):
        decompress(zlib.compress(limit + b"\0"), "deflate")
    assert decompressed_size(zlib.compress(limit), "deflate") == MAX_DECOMPRESSED_BYTES
    with pytest.raises(TooLarge, match="larger than 16 MiB when decompressed"):
        decompressed_size(zlib.compress(limit + b"\0"), "deflate")


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_compressed_request_is_parsed_like_plain_request(compress):
    message = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["hi"]}]}
    head = json.dumps(
        {"inputs": [{**message["inputs"][0], "data": None, "parameters": {"binary_data_size": 6}}]}
    )
    binary = head.encode() + b"\2\0\0\0hi"
    requests = [
        (b"hi", HTTP),
        (json.dumps({"inputs": "hi"}).encode(), JSON),
        (json.dumps(message).encode(), OPEN_INFERENCE),
        (binary, OPEN_INFERENCE | {"Inference-Header-Content-Length": str(len(head))}),
    ]
    for body, headers in requests:
        encoding = {"Content-Encoding": "gzip" if compress is gzip.compress else "deflate"}
        packed = RequestParser({"body": bytearray(compress(body))}, headers | encoding, SETTINGS).parse()
        plain = RequestParser({"body": bytearray(body)}, headers, SETTINGS).parse()
        assert (packed.payloads, packed.parameters, packed.encoder) == (plain.payloads, {}, plain.encoder)


def test_compressed_form_parsed_by_torchserve_is_rejected():
    parser = RequestParser({"text": b"hi"}, HTTP | {"content-encoding": "gzip"}, SETTINGS)
    with pytest.raises(InvalidRequest, match="send it uncompressed"):
        parser.parse()
    identity = RequestParser({"text": b"hi"}, HTTP | {"content-encoding": "identity"}, SETTINGS)
    assert identity.parse().payloads == (b"hi",)


@pytest.mark.parametrize("window_bits", [zlib.MAX_WBITS, -zlib.MAX_WBITS, zlib.MAX_WBITS | 16])
def test_decompressed_size_is_counted_in_chunks(monkeypatch, window_bits):
    monkeypatch.setattr(compression, "decompress", None)
    compressing = zlib.compressobj(wbits=window_bits)
    body = compressing.compress(bytes(2**22)) + compressing.flush()
    assert compression.decompressed_size(body, "deflate") == 2**22
