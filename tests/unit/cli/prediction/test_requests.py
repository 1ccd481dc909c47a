"""Requests of `predict`: JSON Lines, images by their first bytes, and images in base64."""

import base64
import json

import pytest

from tests.unit.cli.prediction.predict_inputs import JPEG, PNG, texts, write
from torchserve_models.cli.prediction.requests import base64_image, is_image

LINES = [
    {"inputs": "a text"},
    {"text": "another", "parameters": {"min_length": 2}, "id": "second"},
    {"inputs": ["two", "texts"], "id": 7},
]


@pytest.mark.parametrize("arguments", [("in.jsonl",), ("in.ndjson",), ("in.txt", "--input-format", "jsonl")])
def test_json_lines_send_texts_with_parameters(predict, tmp_path, arguments):
    write(tmp_path, {arguments[0]: "\n\n".join(map(json.dumps, LINES))})
    code, records, _ = predict("texts", *arguments, "--ordered", "--param", "min_length=9")
    assert code == 0
    assert [record["input"] for record in records] == [f"{arguments[0]}:{number}" for number in (1, 3, 5)]
    assert [record.get("id") for record in records] == [None, "second", 7]
    answered = [[summary["text"] for summary in record["summaries"]] for record in records]
    assert answered == [
        ['a text {"min_length": 9}'],
        ['another {"min_length": 2}'],
        ['two {"min_length": 9}', 'texts {"min_length": 9}'],
    ]


def test_json_lines_send_images(predict, tmp_path):
    encoded = base64.b64encode(JPEG).decode()
    lines = [{"image": "a.png"}, {"inputs": encoded}, {"inputs": f"data:image/jpeg;base64,{encoded}"}]
    write(tmp_path, {"a.png": PNG, "in.jsonl": "\n".join(map(json.dumps, lines))})
    code, records, _ = predict("images", "in.jsonl", "--ordered", "--top-k", "1")
    assert code == 0
    assert [record["labels"][0]["label"] for record in records] == [
        "100 bytes, 0.5",
        "200 bytes, 0.5",
        "200 bytes, 0.5",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "in.jsonl:1 is not valid JSON: Expecting property name enclosed in double quotes at column 2"),
        ("[1]", "in.jsonl:1 must be a JSON object, not a list"),
        ('"a text"', "must be a JSON object, not a string"),
        ("{}", "must have exactly one of"),
        ('{"article": "x", "highlights": "y"}', "the object has 'article', 'highlights'"),
        ('{"text": "x", "inputs": "y"}', "must have exactly one of"),
        ('{"text": "x", "model": "y"}', "may have"),
        ('{"inputs": 1}', "'inputs' must be a text, a list of texts or an image in base64, not a number"),
        ('{"inputs": []}', "'inputs' is an empty list"),
        ('{"inputs": ["a", 1]}', "each element of 'inputs' must be a text, not a number"),
        ('{"inputs": null}', "not null"),
        ('{"text": "x", "text": "y"}', "the name 'text' appears twice"),
        ('{"text": "x", "parameters": {"a": 1, "a": 2}}', "the name 'a' appears twice"),
        ('{"text": "x", "parameters": {"a": NaN}}', "NaN is not a finite number"),
        ('{"text": "x", "parameters": []}', '"parameters" must be an object, not a list'),
        ('{"text": "x", "parameters": false}', '"parameters" must be an object, not false'),
        ("[" * 100_000, "in.jsonl:1 is not valid JSON: "),
        ('{"inputs": [{"name": "text"}]}', "each element of 'inputs' must be a text, not an object"),
        ('{"text": ["x"]}', "'text' must be a text, not a list"),
        ('{"text": "x", "parameters": [1]}', '"parameters" must be an object, not a list'),
        ('{"text": "x", "parameters": {"model": "y"}}', "'model' cannot be a parameter"),
        ('{"text": "x", "parameters": {"min_length": [1]}}', "min_length must be a number"),
        ('{"image": "absent.jpg"}', "No such file"),
        (
            json.dumps({"inputs": [base64.b64encode(JPEG).decode()] * 2}),
            "'inputs' is a list that contains an image",
        ),
    ],
)
def test_invalid_line_is_reported_and_next_line_is_sent(predict, tmp_path, line, message):
    write(tmp_path, {"in.jsonl": f'{line}\n{{"text": "good"}}'})
    code, records, _ = predict("texts", "in.jsonl", "--ordered")
    assert code == 1
    assert [record["input"] for record in records] == ["in.jsonl:1", "in.jsonl:2"]
    assert message in records[0]["error"]["message"]
    assert texts(records[1:]) == ["good"]


def test_images_are_detected_by_first_bytes():
    for head in (PNG, JPEG, b"GIF89a", b"BM\x46\0\0\0\0\0\0\0\x36", b"II*\0", b"MM\0*", b"\0\0\1\0"):
        assert is_image(head)
    assert is_image(b"RIFF\0\0\0\0WEBPVP8 ")
    assert is_image(b"\0\0\0\x1cftypavif")
    for head in (b"", b"BMW will build", b"RIFF\0\0\0\0WAVE", b"\0\0\0\x1cftypmp42", b"text"):
        assert not is_image(head)


@pytest.mark.parametrize("text", ["", "a text", "abcd", "Rain fell.", "ftyp" * 20])
def test_text_is_not_decoded_as_base64_image(text):
    assert base64_image(text) is None


def test_base64_with_line_breaks_is_decoded():
    assert base64_image(base64.encodebytes(JPEG).decode()) == JPEG
