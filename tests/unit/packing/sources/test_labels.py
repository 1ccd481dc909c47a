"""Parsing of label files in text and JSON formats."""

import json
from pathlib import Path

import pytest

from torchserve_models.packing import errors
from torchserve_models.packing.sources.labels import read_labels


def written(folder: Path, content: object, name: str = "labels") -> Path:
    path = folder / name
    data = (
        content
        if isinstance(content, bytes)
        else content
        if isinstance(content, str)
        else json.dumps(content)
    )
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "tench\ngold fish\n",
        "tench\r\ngold fish\r\n\r\n",
        b"\xef\xbb\xbftench\ngold fish",
        ["tench", "gold fish"],
        {"0": "tench", "1": "gold fish"},
        {"1": "gold fish", "0": "tench"},
        {"tench": 0, "gold fish": 1},
        {"0": ["n01440764", "tench"], "1": ["n01443537", "gold fish"]},
        [["n01440764", "tench"], ["n01443537", "gold fish"]],
    ],
    ids=repr,
)
def test_all_formats_give_the_same_labels(tmp_path: Path, content: object) -> None:
    assert read_labels(written(tmp_path, content)) == ["tench", "gold fish"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no labels"),
        ([], "no labels"),
        ("tench\n\ngold fish\n", "no label for index 1"),
        ({"0": "tench", "2": "gold fish"}, "no label for index 1"),
        ({"1": "tench", "2": "gold fish"}, "no label for index 0"),
        ({"tench": "gold fish"}, "must map indices"),
        ({"0": 3.5}, "labels must be strings"),
        ([["tench"], []], "labels must be strings"),
        (b"\xff\xfe", "UTF-8"),
    ],
    ids=repr,
)
def test_invalid_label_files_are_rejected(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(errors.InvalidSource, match=words):
        read_labels(written(tmp_path, content))


def test_text_labels_may_look_like_json(tmp_path: Path) -> None:
    text = "[unk]\ntench\n"
    assert read_labels(written(tmp_path, text)) == ["[unk]", "tench"]
    with pytest.raises(errors.InvalidSource, match="not valid JSON"):
        read_labels(written(tmp_path, text, "labels.json"))


def test_only_line_feeds_separate_labels(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path, "a\x0bb\nc\u2028d\r\n")) == ["a\x0bb", "c\u2028d"]


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.PackingError, match=r"reading the labels .*nowhere"):
        read_labels(tmp_path / "nowhere")
