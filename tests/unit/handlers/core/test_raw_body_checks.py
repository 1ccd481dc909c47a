"""Tests that forms and incorrectly encoded objects with another content type are rejected."""

import pytest

from handlers.core.errors import InvalidRequest
from handlers.core.raw_body_checks import check_raw_body

NAMES = ("text", "data", "file", "inputs")
PART = 'Content-Disposition: form-data; name="text"\r\n\r\nRain fell.\r\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"--2f7c\r\n{PART}--2f7c--\r\n", "set Content-Type: multipart/form-data; boundary=2f7c"),
        (f"\r\n----WebKitFormBoundaryX\r\n{PART.lower()}", "boundary=--WebKitFormBoundaryX"),
        ("--2f7c\nContent-Type: application/json\n\n{}\n--2f7c--", "a multipart form"),
        ("text=Rain+fell.&num_beams=2", "'text=...' set Content-Type: application/x-www-form-urlencoded"),
        ("inputs[]=Rain&inputs[]=Sun", "looks like a form"),
        ("inputs%5B0%5D=Rain", "looks like a form"),
        ("&text=Rain", "looks like a form"),
        ('payload={"inputs": "Rain fell."}', "looks like a form"),
        ('json=["Rain fell."]', "looks like a form"),
        ("[object Object]", "JSON.stringify"),
        ("[object FormData]", "JSON.stringify"),
        ("%7B%22inputs%22%3A+%22Rain%22%7D", "percent-encoded"),
        ("Rain%20fell.", "percent-encoded"),
        ("Rain%20fell." * 1000, "percent-encoded"),
    ],
)
def test_form_or_encoded_object_is_rejected(content: str, message: str) -> None:
    for body in (content, content.encode(), bytearray(content.encode()), memoryview(content.encode())):
        with pytest.raises(InvalidRequest) as raised:
            check_raw_body(body, NAMES)
        assert message in raised.value.message


@pytest.mark.parametrize(
    "content",
    [
        "",
        "Rain fell.",
        "text = Rain",
        "E=mc² holds.",
        "x={1, 2} is a set.",
        "---\ntitle: Rain\n---\nRain fell.",
        "--\nContent: none",
        "100% of it, %20 too",
        "50%25",
        "[object] of the sentence",
        "The text=x",
        "[object Object] is what you see in the console when a page is broken.",
        'data=pd.read_csv("x.csv")\nprint(data)',
        'names=["a","b"]\nfor n in names: print(n)',
        "m=[[1,2],[3,4]]\nprint(m)",
        "DATA=/var/lib\nexport DATA",
        "---\nContent-Type: text/markdown\n---\nRain fell.",
    ],
)
def test_plain_texts_are_accepted(content: str) -> None:
    check_raw_body(content, NAMES)
    check_raw_body(content.encode(), NAMES)


def test_image_files_are_accepted() -> None:
    for start in (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"):
        check_raw_body(start + bytes(range(256)) * 100, ("image", "data"))
