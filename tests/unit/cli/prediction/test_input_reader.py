"""Detection of an input's type: files, standard input and arguments of `predict`."""

import pytest

from tests.unit.cli.prediction.predict_inputs import texts, write

AMBIGUOUS_FILES = [
    ("in.txt", '{"inputs": "a"}\n{"inputs": "b"}\n', "JSON"),
    ("in", '{\n  "inputs": "a"\n}', "JSON"),
    ("in.txt", '[\n  {"inputs": "a"}\n]', "JSON"),
    ("in.txt", "photos/a.jpg\nphotos/b.jpg\n", "a list of paths"),
    ("in", "in\nin\n", "a list of paths"),
]


def check_ambiguous(record, fake, reason):
    assert record["error"]["message"].startswith(reason)
    assert "--input-format" in record["error"]["message"]
    assert fake.received == []


@pytest.mark.parametrize(("name", "content", "what"), AMBIGUOUS_FILES)
def test_text_that_looks_like_json_or_paths_requires_input_format(
    predict, tmp_path, fake, name, content, what
):
    write(tmp_path, {name: content})
    code, [record], _ = predict("texts", name, "--json")
    assert code == 1
    check_ambiguous(record, fake, f"{name} looks like {what}")
    code, [record], _ = predict("texts", "-", "--json", stdin=content.encode())
    assert code == 1
    check_ambiguous(record, fake, f"standard input looks like {what}")
    assert texts(predict("texts", name, "--json", "--input-format", "text")[1]) == [content]


@pytest.mark.parametrize("name", ["in.json", "in.csv", "in.html", "in.pdf", "in.docx"])
def test_file_with_unknown_suffix_requires_input_format(predict, tmp_path, fake, name):
    write(tmp_path, {name: "a text"})
    code, [record], _ = predict("texts", name, "--json")
    assert code == 1
    check_ambiguous(record, fake, f"cannot detect the type of {name}")
    assert texts(predict("texts", name, "--json", "--input-format", "text")[1]) == ["a text"]


@pytest.mark.parametrize(
    "argument", ["in/absent", "absent.jpg", "my photos/absent.jpg", "fotos", "in/*.jpg", "x.jsonl"]
)
def test_missing_file_is_reported_and_not_sent_as_text(predict, fake, argument):
    code, [record], _ = predict("texts", argument, "--json")
    assert code == 1
    message = record["error"]["message"]
    assert "No such file" in message or "no file matches" in message
    assert fake.received == []


@pytest.mark.parametrize("kind", ["image", "paths", "jsonl"])
def test_text_is_rejected_with_other_input_format(predict, fake, kind):
    code, [record], _ = predict("texts", "a text", "--json", "--input-format", kind)
    assert (code, record["error"]["type"], fake.received) == (1, "FileNotFoundError", [])


@pytest.mark.parametrize(
    "text",
    [
        "What is this?",
        "It [the firm] rose 5 * 3.",
        "BMW will build a factory.",
        "東京で雨が降った。",
        "[1] It rained.",
    ],
)
def test_text_argument_is_sent_as_text(predict, tmp_path, text):
    assert texts(predict("texts", text, "--json")[1]) == [text]
    assert texts(predict("texts", "-", "--json", stdin=text.encode())[1]) == [text]
    write(tmp_path, {"no-suffix": text})
    assert texts(predict("texts", "no-suffix", "--json")[1]) == [text]


def test_single_word_is_sent_with_input_format_text(predict):
    assert texts(predict("texts", "fotos", "--json", "--input-format", "text")[1]) == ["fotos"]
