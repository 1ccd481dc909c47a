"""Tests of detecting JSON by its content, in contrast to texts and images."""

import json

import pytest

from handlers.core.json_detection import looks_like_json

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
    *(
        f'{invisible}{{"inputs": "x"}}'
        for invisible in ("\0", "\x1e", "\xa0", "\u200b", "\u2028", "\u2060", "\n\ufeff")
    ),
    "{“inputs”: “Rain fell.”}",
    '{"inputs" "Rain fell."}',
    '{"inp',
    '\'{"inputs": "Rain fell."}\'',
    "'{inputs:",
    'b\'{"inputs": "Rain fell."}\'',
    '"{\\"inputs\\": \\"Rain fell.\\"}"',
    "{inputs=Rain fell., parameters={num_beams=2}}",
    '{:inputs=>"Rain fell."}',
    '{"inputs"=>"Rain fell."}',
    "{%22inputs%22:%22Rain%22}",
    '{ // the text\n"inputs": "Rain fell."}',
    '["Rain fell.", "Sun shone.",]',
    "['Rain fell.', 'Sun shone.']",
    '["Rain fell."]\n["Sun shone."]\n',
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
    "{'Tis raining.}",
    "{inputs}",
    "'Rain fell,' said the mayor.",
    "but Rain fell.",
    "b",
    '["Rain fell," said the mayor] and left.',
    "\u200bRain fell.",
    "true",
    "12",
    "<p>Rain</p>",
    '{\\"U}ber die Dynamik der Gase',
    '["Ode to Joy" plays] Good evening. [applause]',
    "['90s music playing] Hello. [laughs]",
    "['Cause I love you]\nla la\n[Outro]",
    '["Foo"][1] is good. See [2]',
    '"{" and "}" delimit blocks in C.',
    '"{}" is an empty set',
    "{“Hello,” he said}",
    "{«Bonjour», dit-il}",
    '{"Hello," she said, and left',
    "{ // comment\n int x;",
    "{/* C block */ int x;}",
]


@pytest.mark.parametrize("text", MEANT_AS_JSON, ids=range(len(MEANT_AS_JSON)))
def test_json_is_detected(text: str) -> None:
    for content in (text, text.encode(), bytearray(text.encode()), b"\xef\xbb\xbf" + text.encode()):
        assert looks_like_json(content)


@pytest.mark.parametrize("text", TEXT, ids=range(len(TEXT)))
def test_text_is_not_detected_as_json(text: str) -> None:
    for content in (text, text.encode(), bytearray(text.encode())):
        assert not looks_like_json(content)


@pytest.mark.parametrize(
    "image", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF"]
)
def test_image_files_are_accepted(image: bytes) -> None:
    assert not looks_like_json(image + bytes(range(256)) * 100)
