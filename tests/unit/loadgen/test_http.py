"""HTTP requests, and responses that arrive byte by byte."""

import pytest

from torchserve_models.loadgen import multipart_request, post_request
from torchserve_models.loadgen.http import Response, parse_response


def test_post_request_has_content_length():
    head, _, body = post_request("/predict", b"12345", "image/jpeg").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /predict HTTP/1.1\r\n")
    assert b"Content-Length: 5" in head
    assert body == b"12345"


def test_multipart_request_contains_the_file_between_boundaries():
    head, _, body = multipart_request("/predict", "file", b"\xff\xd8").partition(b"\r\n\r\n")
    boundary = head.split(b"boundary=")[1].split(b"\r\n")[0]
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.startswith(b"--" + boundary + b"\r\n")
    assert body.endswith(b"\r\n--" + boundary + b"--\r\n")
    assert b'name="file"' in body
    assert b"\r\n\r\n\xff\xd8\r\n--" in body


@pytest.mark.parametrize(
    ("data", "response"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Response(200, b"hi", True)),
        (
            b"HTTP/1.1 429 Slow down\r\ncontent-length:0\r\nConnection: close\r\n\r\n",
            Response(429, b"", False),
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            Response(200, b"abcde", True),
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            Response(200, b"x", True),
        ),
    ],
)
def test_response_is_returned_as_soon_as_it_is_complete(data, response):
    assert parse_response(data) == response
    assert all(parse_response(data[:length]) is None for length in range(len(data)))


def test_response_without_length_ends_with_the_connection():
    data = b"HTTP/1.1 200 OK\r\n\r\nall of it"
    assert parse_response(data) is None
    assert parse_response(data, closed=True) == Response(200, b"all of it", False)


def test_invalid_http_raises_an_error():
    with pytest.raises(ValueError, match="invalid literal"):
        parse_response(b"SSH 2.0 hello\r\n\r\n")
