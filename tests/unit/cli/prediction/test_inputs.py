"""Expansion of the arguments of `predict`: folders, patterns, lists of paths and pipes."""

import io
import json
import os
import sys
import threading

import httpx
import pytest

from tests.unit.cli.prediction.predict_inputs import JPEG, PNG, names, texts, write
from tests.unit.client.fake_queue import ShortQueue
from tests.unit.client.fake_torchserve import over_http
from torchserve_models.cli import main
from torchserve_models.client import retry

NO_INPUT = "no input found: the lists, folders or patterns contain no image or text\n"


def test_images_of_folder_and_subfolders_are_sent(predict, tmp_path):
    write(
        tmp_path,
        {
            "in/a.png": PNG,
            "in/b/c.JPG": JPEG,
            "in/b/d.pgm": b"P5 1 1 255 x",
            "in/b/no-suffix": PNG,
            "in/.hidden.png": PNG,
            "in/x.csv": "a",
        },
    )
    code, records, errors = predict("images", "in")
    assert code == 0
    assert names(records) == ["in/a.png", "in/b/c.JPG", "in/b/d.pgm", "in/b/no-suffix"]
    assert all("labels" in record for record in records)
    assert errors == "in: skipped 1 file of another type\n"


@pytest.mark.parametrize("pattern", ["in/*.txt", "in/**/*.txt", "*/[ab].txt"])
def test_files_that_match_pattern_are_sent(predict, tmp_path, pattern):
    write(tmp_path, {"in/a.txt": "one text", "in/b.txt": "another text", "in/c.png": PNG})
    code, records, _ = predict("texts", pattern, "--ordered")
    assert (code, texts(records)) == (0, ["one text", "another text"])


def test_folder_with_images_and_texts_requires_input_format(predict, tmp_path, fake):
    write(tmp_path, {"in/a.png": PNG, "in/a.txt": "its caption"})
    code, [record], _ = predict("images", "in")
    assert code == 1
    assert record["error"]["message"] == "in has 1 image and 1 text; set --input-format to image or text"
    assert fake.received == []
    assert names(predict("images", "in", "--input-format", "image")[1]) == ["in/a.png"]
    assert texts(predict("texts", "in", "--input-format", "text")[1]) == ["its caption"]


@pytest.mark.parametrize("kind", ["paths", "jsonl"])
def test_folder_is_rejected_as_list(predict, tmp_path, kind):
    write(tmp_path, {"in/a.png": PNG})
    code, [record], _ = predict("images", "in", "--input-format", kind)
    assert code == 1
    assert record["error"]["message"] == f"in is a folder; --input-format {kind} requires a file"


def test_skipped_folders_of_pattern_are_reported(predict, tmp_path):
    write(tmp_path, {"in/a.png": PNG, "in/b/c.png": PNG})
    code, records, errors = predict("images", "in/*")
    assert (code, names(records), errors) == (0, ["in/a.png"], "in/*: skipped 1 folder\n")
    code, records, errors = predict("images", "in/**")
    assert (code, names(records), errors) == (0, ["in/a.png", "in/b/c.png"], "")
    code, records, errors = predict("images", "i*")
    assert (code, records, errors) == (
        1,
        [],
        f"i*: skipped 1 folder\n{NO_INPUT}",
    )


def test_unreadable_subfolder_is_reported_as_error(predict, tmp_path, monkeypatch):
    write(tmp_path, {"in/a.png": PNG, "in/closed/b.png": PNG})
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    code, records, _ = predict("images", "in", "--ordered")
    assert code == 1
    assert [record["input"] for record in records] == ["in/closed", "in/a.png"]
    assert records[0]["error"]["type"] == "PermissionError"


def test_file_names_that_are_not_utf8_are_printed_escaped(predict, tmp_path, monkeypatch):
    write(tmp_path, {"in/a.png": PNG})
    (tmp_path / os.fsdecode(b"in/\xe9t\xe9.png")).write_bytes(JPEG)
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        code, _, _ = predict("images", "in", "--ordered")
    lines = output.buffer.getvalue().splitlines()
    assert code == 0
    assert [os.fsencode(json.loads(line)["input"]) for line in lines] == [b"in/a.png", b"in/\xe9t\xe9.png"]


def test_standard_input_is_rejected_twice(predict, fake):
    code, _, errors = predict("texts", "-", "-", stdin=b"a text")
    assert (code, fake.received) == (2, [])
    assert "standard input (-) can be given only once" in errors


def test_empty_folder_is_reported_as_error(predict, tmp_path):
    write(tmp_path, {"in/x.csv": "a"})
    code, [record], _ = predict("images", "in")
    assert (code, record["error"]["message"]) == (1, "the folder in contains no image or text file")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_list_is_reported_as_error(predict, tmp_path, content):
    write(tmp_path, {"list": content})
    assert predict("texts", "list", "--input-format", "paths") == (
        1,
        [],
        NO_INPUT,
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("from_stdin", [False, True])
def test_files_of_path_list_are_sent(predict, tmp_path, end, from_stdin):
    write(tmp_path, {"a.png": PNG, "with space.png": PNG, "ä.jpg": JPEG})
    listed = end.join(["\ufeffa.png", "", "ä.jpg", "absent.jpg", "with space.png"]).encode()
    write(tmp_path, {"files.txt": listed})
    arguments = ("-",) if from_stdin else ("files.txt",)
    code, records, errors = predict(
        "images", *arguments, "--input-format", "paths", "--ordered", stdin=listed
    )
    assert code == 1
    assert [record["input"] for record in records] == ["a.png", "ä.jpg", "absent.jpg", "with space.png"]
    assert ["labels" in record for record in records] == [True, True, False, True]
    assert records[2]["error"]["type"] == "FileNotFoundError"
    assert "1 of 4 inputs failed" in errors


def test_arguments_of_several_types_are_sent_in_order(predict, tmp_path):
    write(
        tmp_path, {"in/a.txt": "from a folder", "b.txt": "from a file", "c.jsonl": '{"text": "from a list"}'}
    )
    code, records, _ = predict("texts", "in", "b.txt", "c.jsonl", "a text", "--ordered")
    assert (code, texts(records)) == (0, ["from a folder", "from a file", "from a list", "a text"])


def test_no_json_option_prints_text_lines(predict, tmp_path):
    write(tmp_path, {"in/a.png": PNG})
    code, lines, _ = predict("images", "in", "--no-json", json_lines=False)
    assert (code, lines[0]) == (0, "in/a.png")
    assert "100 bytes, 0.5" in lines[1]


def test_lines_of_pipe_are_answered_before_its_end(fake, capsys, monkeypatch):
    """The second line is written only when the first one is answered."""
    reading, writing = os.pipe()
    answered = threading.Event()

    def answer(request):
        answered.set()
        return fake.handle_rest(request)

    def write_lines():
        with open(writing, "wb") as pipe:
            for text in ("first", "second"):
                pipe.write(json.dumps({"text": text}).encode() + b"\n")
                pipe.flush()
                assert answered.wait(20)
                answered.clear()

    with over_http(answer) as port, open(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        thread = threading.Thread(target=write_lines)
        thread.start()
        assert main(["predict", "texts", "-", "--input-format", "jsonl", "--port", str(port)]) == 0
        thread.join()
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["input"], *texts([record])) for record in records] == [
        ("standard input:1", "first"),
        ("standard input:2", "second"),
    ]


def test_all_inputs_are_answered_despite_short_queue(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "INITIAL_PAUSE_S", 0.005)
    write(tmp_path, {f"in/{number}.jpg": str(number) for number in range(150)})
    queue = ShortQueue(queue_size=1, batch_size=1, seconds=0.01)
    with over_http(queue.answer) as port:
        assert main(["predict", "images", str(tmp_path / "in"), "--port", str(port)]) == 0
    queue.close()
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == 150
    assert all(record["input"].endswith(f"/{record['labels'][0]['label']}.jpg") for record in records)
    assert queue.refused > 0


def test_missing_server_is_reported_once(tmp_path, capsys):
    write(tmp_path, {f"in/{number}.jpg": b"x" for number in range(100)})
    assert main(["predict", "images", str(tmp_path / "in"), "--url", "http://127.0.0.1:1", "--no-json"]) == 1
    errors = capsys.readouterr().err
    assert "no server answers at http://127.0.0.1:1 " in errors
    assert "no further inputs were sent" in errors
    assert errors.count("scripts/serve") == 1
    assert errors.count("no server answers") < 100


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_bar_is_shown_only_on_terminal(predict, tmp_path, monkeypatch, is_terminal):
    write(tmp_path, {"in/a.png": PNG, "in/b.png": PNG})
    monkeypatch.setenv("TERM", "xterm")
    stderr = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    code, records, _ = predict("images", "in")
    assert code == 0
    assert names(records) == ["in/a.png", "in/b.png"]
    assert ("2/2" in stderr.getvalue()) is is_terminal


def test_server_error_has_id_of_request(capsys, tmp_path):
    write(tmp_path, {"in.jsonl": '{"text": "x", "id": "a"}'})
    with over_http(
        lambda request: httpx.Response(400, json={"code": 400, "type": "InvalidText", "message": "m"})
    ) as port:
        assert main(["predict", "texts", str(tmp_path / "in.jsonl"), "--port", str(port)]) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["id"], record["error"]["type"]) == ("a", "InvalidText")
