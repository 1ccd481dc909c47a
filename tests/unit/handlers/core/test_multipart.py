"""Tests of parsing multipart forms, and of the errors for malformed ones."""

import httpx
import pytest

from handlers.core.errors import InvalidRequest
from handlers.core.multipart import parse_multipart

CONTENTS = [b"", b"text", bytes(range(256)) * 9, b"\r\n--almost\r\n\r\n", b"\r\n", "ü".encode()]


def encoded(fields):
    request = httpx.Request("POST", "http://x", files=fields)
    return request.read(), request.headers["content-type"]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_field_contents_are_unchanged(content):
    body, content_type = encoded({"image": ('a;b".jpg', content, "image/jpeg"), "top_k": (None, b"3")})
    fields, headers = parse_multipart(bytearray(body), content_type)
    assert fields == {"image": content, "top_k": b"3"}
    assert headers == {"image": {"content-type": "image/jpeg"}, "top_k": {"content-type": ""}}


@pytest.mark.parametrize("boundary", ["x", '"a b"', "----WebKitFormBoundary7MA4YWxkTrZu0gW"])
def test_unusual_boundaries_are_parsed(boundary):
    mark = boundary.strip('"')
    body = f"before\r\n--{mark}  \r\ncontent-disposition:form-data;name=text\r\n\r\nhi\r\n--{mark}--\r\nafter"
    content_type = f"multipart/form-data; boundary={boundary}; charset=utf-8"
    assert parse_multipart(body.encode(), content_type)[0] == {"text": b"hi"}
    assert parse_multipart(f"--{mark}--".encode(), content_type) == ({}, {})


HEAD = "Content-Disposition: form-data; name=a\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "does not occur in the body"),
        ("--y--", "does not occur in the body"),
        ("--x", "boundary line of the form is malformed"),
        ("--x\r\n", "truncated"),
        (f"--x\r\n{HEAD}hi", "truncated"),
        (f"--x\r\n{HEAD}hi\r\n--x", "boundary line of the form is malformed"),
        (f"--x\r\n{HEAD}hi\r\n--xy\r\n--x--", "boundary line of the form is malformed"),
        (f"--x\r\n{HEAD}hi\r\n--x--\r\nho\r\n--x--", "continues after its last boundary"),
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
        (f"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n{HEAD}--y--\r\n--x--", "is a nested form"),
        (
            "".join(f"--x\r\nContent-Disposition: form-data; name=a{i}\r\n\r\nhi\r\n" for i in range(101))
            + "--x--",
            "more than 100",
        ),
    ],
)
def test_malformed_form_is_rejected(body, message):
    with pytest.raises(InvalidRequest, match=message):
        parse_multipart(body.encode(), "multipart/form-data; boundary=x")


def test_form_without_boundary_is_rejected():
    with pytest.raises(InvalidRequest, match="has no boundary; let the HTTP library set this header"):
        parse_multipart(b"--x--", "multipart/form-data")
