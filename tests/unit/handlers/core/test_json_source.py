"""What is meant as JSON, whatever its content type says, and what is text or an image."""

import json

import pytest

from handlers.core.json_source import is_json_source

MEANT_AS_JSON = [
    '{"inputs": "Rain fell."}',
    ' \r\n\t{ "inputs" : "Rain fell."}',
    "{}",
    "{'inputs': 'Rain fell.'}",
    "{inputs: Rain fell.}",
    '{\\"inputs\\": \\"Rain fell.\\"}',
    '{"inputs": "Rain fell.", }',
    '{"inputs": "cut o',
    '{"inputs": "a"}\n{"inputs": "b"}',
    '[{"inputs": "a"}, {"inputs": "b"',
    '["Rain fell.", "Sun shone."]',
    "[1, 2]",
    "[]",
    json.dumps("café\n"),
    '{"inputs": "' + "x" * 100_000,
    "[" * 200 + "]" * 200,
    " " * 10_000 + '{"inputs": "x"}',
]
TEXT = [
    "Rain fell.",
    "",
    '"Rain fell," said the mayor.',
    '"Rain fell."',
    "[Applause] The mayor spoke. [1]",
    "[1] Rain fell.",
    "{{Infobox town}} The town",
    "{\\rtf1 Rain}",
    "{Rain: it fell.}",
    "true",
    "12",
    "<p>Rain</p>",
]


@pytest.mark.parametrize("text", MEANT_AS_JSON, ids=range(len(MEANT_AS_JSON)))
def test_json(text: str) -> None:
    for content in (text, text.encode(), bytearray(text.encode()), b"\xef\xbb\xbf" + text.encode()):
        assert is_json_source(content)


@pytest.mark.parametrize("text", TEXT, ids=range(len(TEXT)))
def test_text(text: str) -> None:
    for content in (text, text.encode(), bytearray(text.encode())):
        assert not is_json_source(content)


@pytest.mark.parametrize(
    "image", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF"]
)
def test_images(image: bytes) -> None:
    assert not is_json_source(image + bytes(range(256)) * 100)
