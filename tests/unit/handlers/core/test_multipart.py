"""Forms of files, as clients write them, and malformed ones with a reason."""

import httpx
import pytest

from handlers.core.errors import InvalidRequest
from handlers.core.multipart import read_multipart

CONTENTS = [b"", b"text", bytes(range(256)) * 9, b"\r\n--almost\r\n\r\n", b"\r\n", "ü".encode()]


def encoded(fields):
    request = httpx.Request("POST", "http://x", files=fields)
    return request.read(), request.headers["content-type"]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_contents_come_through_byte_for_byte(content):
    body, content_type = encoded({"image": ('a;b".jpg', content, "image/jpeg"), "top_k": (None, b"3")})
    fields, headers = read_multipart(bytearray(body), content_type)
    assert fields == {"image": content, "top_k": b"3"}
    assert headers == {"image": {"content-type": "image/jpeg"}, "top_k": {"content-type": ""}}


@pytest.mark.parametrize("boundary", ["x", '"a b"', "----WebKitFormBoundary7MA4YWxkTrZu0gW"])
def test_boundaries(boundary):
    mark = boundary.strip('"')
    body = f"before\r\n--{mark}  \r\ncontent-disposition:form-data;name=text\r\n\r\nhi\r\n--{mark}--\r\nafter"
    content_type = f"multipart/form-data; boundary={boundary}; charset=utf-8"
    assert read_multipart(body.encode(), content_type)[0] == {"text": b"hi"}
    assert read_multipart(f"--{mark}--".encode(), content_type) == ({}, {})


HEAD = "Content-Disposition: form-data; name=a\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "nowhere in the body"),
        ("--y--", "nowhere in the body"),
        ("--x", "malformed boundary"),
        ("--x\r\n", "cut off"),
        (f"--x\r\n{HEAD}hi", "cut off"),
        (f"--x\r\n{HEAD}hi\r\n--x", "malformed boundary"),
        (f"--x\r\n{HEAD}hi\r\n--xy\r\n--x--", "malformed boundary"),
        (f"--x\r\n{HEAD}hi\r\n--x--\r\nho\r\n--x--", "goes on behind its last boundary"),
        ("--x\r\nhi\r\n--x--", "no header"),
        ("--x\r\n--x--", "no header"),
        ('--x\r\nContent-Disposition: form-data; name=""\r\n\r\nhi\r\n--x--', "no name"),
        ("--x\r\nContent-Type: text/plain\r\n\r\nhi\r\n--x--", "no name"),
        (f"--x\r\nContent-Disposition: form-data; name*{'1' * 5000}=x\r\n\r\nhi\r\n--x--", "no name"),
        (f"--x\r\n{HEAD}hi\r\n--x\r\n{HEAD}hi\r\n--x--", "'a' twice"),
        (
            f"--x\r\nContent-Transfer-Encoding: BASE64\r\n{HEAD}aGk=\r\n--x--",
            "Content-Transfer-Encoding 'base64'",
        ),
        (f"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n{HEAD}--y--\r\n--x--", "a form of its own"),
        (
            "".join(f"--x\r\nContent-Disposition: form-data; name=a{i}\r\n\r\nhi\r\n" for i in range(101))
            + "--x--",
            "more than 100",
        ),
    ],
)
def test_malformed_forms_are_named(body, message):
    with pytest.raises(InvalidRequest, match=message):
        read_multipart(body.encode(), "multipart/form-data; boundary=x")


def test_a_form_without_a_boundary_is_named():
    with pytest.raises(InvalidRequest, match="names no boundary; leave this header to the HTTP library"):
        read_multipart(b"--x--", "multipart/form-data")
