"""Requests and answers byte by byte."""

import pytest

from benchmarks.wire import Reply, post, post_file, read_reply


def test_a_request_says_how_long_it_is():
    head, _, body = post("/predict", b"12345", "image/jpeg").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /predict HTTP/1.1\r\n")
    assert b"Content-Length: 5" in head
    assert body == b"12345"


def test_a_form_holds_the_file_between_its_boundaries():
    head, _, body = post_file("/predict", "file", b"\xff\xd8").partition(b"\r\n\r\n")
    boundary = head.split(b"boundary=")[1].split(b"\r\n")[0]
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.startswith(b"--" + boundary + b"\r\n")
    assert body.endswith(b"\r\n--" + boundary + b"--\r\n")
    assert b'name="file"' in body
    assert b"\r\n\r\n\xff\xd8\r\n--" in body


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Reply(200, b"hi", True)),
        (b"HTTP/1.1 429 Slow down\r\ncontent-length:0\r\nConnection: close\r\n\r\n", Reply(429, b"", False)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            Reply(200, b"abcde", True),
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            Reply(200, b"x", True),
        ),
    ],
)
def test_an_answer_is_found_when_it_is_whole_and_not_before(data, reply):
    assert read_reply(data) == reply
    assert all(read_reply(data[:length]) is None for length in range(len(data)))


def test_without_a_length_the_end_of_the_connection_is_the_end():
    data = b"HTTP/1.1 200 OK\r\n\r\nall of it"
    assert read_reply(data) is None
    assert read_reply(data, closed=True) == Reply(200, b"all of it", False)


def test_what_is_no_http_is_an_error():
    with pytest.raises(ValueError, match="invalid literal"):
        read_reply(b"SSH 2.0 hello\r\n\r\n")
