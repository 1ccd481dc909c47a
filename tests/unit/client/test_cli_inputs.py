"""What `predict` makes of its arguments: many inputs, and none whose kind is guessed wrong."""

import base64
import io
import json
import os
import sys
import threading

import httpx
import pytest

from tests.unit.client.fake_queue import ShortQueue
from tests.unit.client.fake_torchserve import over_http
from torchserve_models.client import retry
from torchserve_models.client.cli import main
from torchserve_models.client.cli_requests import base64_image, is_image

PNG = b"\x89PNG\r\n\x1a\n" + bytes(92)
JPEG = b"\xff\xd8\xff\xe0" + bytes(196)


@pytest.fixture
def predict(fake, capsys, monkeypatch, tmp_path):
    """Runs the command in an empty folder; gives the exit code, the JSON lines and the text on stderr."""
    monkeypatch.chdir(tmp_path)
    with over_http(fake.rest) as port:

        def run(*arguments, stdin=None, json_lines=True):
            if stdin is not None:
                monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            code = main(["predict", *map(str, arguments), "--port", str(port)])
            output = capsys.readouterr()
            lines = output.out.splitlines()
            return code, [json.loads(line) for line in lines] if json_lines else lines, output.err

        yield run


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def texts(records):
    return [record["summaries"][0]["text"].removesuffix(" {}") for record in records]


def names(records):
    return sorted(record["input"] for record in records)


def test_a_folder(predict, tmp_path):
    """Case 22."""
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
    assert errors == "in: left out as of another kind: 1\n"


@pytest.mark.parametrize("pattern", ["in/*.txt", "in/**/*.txt", "*/[ab].txt"])
def test_a_pattern(predict, tmp_path, pattern):
    """Case 22."""
    write(tmp_path, {"in/a.txt": "one text", "in/b.txt": "another text", "in/c.png": PNG})
    code, records, _ = predict("texts", pattern, "--ordered")
    assert (code, texts(records)) == (0, ["one text", "another text"])


def test_a_folder_of_two_kinds_is_asked_for(predict, tmp_path, fake):
    write(tmp_path, {"in/a.png": PNG, "in/a.txt": "its caption"})
    code, [record], _ = predict("images", "in")
    assert code == 1
    assert record["error"]["message"] == "in has 1 images and 1 texts; use --input-format image or text"
    assert fake.seen == []
    assert names(predict("images", "in", "--input-format", "image")[1]) == ["in/a.png"]
    assert texts(predict("texts", "in", "--input-format", "text")[1]) == ["its caption"]


@pytest.mark.parametrize("kind", ["paths", "jsonl"])
def test_a_folder_is_no_list(predict, tmp_path, kind):
    write(tmp_path, {"in/a.png": PNG})
    code, [record], _ = predict("images", "in", "--input-format", kind)
    assert code == 1
    assert record["error"]["message"] == f"in is a folder; --input-format {kind} is for a file"


def test_folders_that_match_a_pattern_are_counted(predict, tmp_path):
    write(tmp_path, {"in/a.png": PNG, "in/b/c.png": PNG})
    code, records, errors = predict("images", "in/*")
    assert (code, names(records), errors) == (0, ["in/a.png"], "in/*: folders left out: 1\n")
    code, records, errors = predict("images", "in/**")
    assert (code, names(records), errors) == (0, ["in/a.png", "in/b/c.png"], "")
    code, records, errors = predict("images", "i*")
    assert (code, records, errors) == (1, [], "i*: folders left out: 1\nthere are no inputs\n")


def test_a_folder_that_cannot_be_read_is_an_error(predict, tmp_path, monkeypatch):
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


def test_names_that_are_not_utf_8(predict, tmp_path, monkeypatch):
    """Once a UnicodeEncodeError in the middle of the run."""
    write(tmp_path, {"in/a.png": PNG})
    (tmp_path / os.fsdecode(b"in/\xe9t\xe9.png")).write_bytes(JPEG)
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        code, _, _ = predict("images", "in", "--ordered")
    lines = output.buffer.getvalue().splitlines()
    assert code == 0
    assert [os.fsencode(json.loads(line)["input"]) for line in lines] == [b"in/a.png", b"in/\xe9t\xe9.png"]


def test_standard_input_can_be_read_only_once(predict, fake):
    code, _, errors = predict("texts", "-", "-", stdin=b"a text")
    assert (code, fake.seen) == (2, [])
    assert "standard input (-) can be read only once" in errors


def test_an_empty_folder_is_no_success(predict, tmp_path):
    write(tmp_path, {"in/x.csv": "a"})
    code, [record], _ = predict("images", "in")
    assert (code, record["error"]["message"]) == (1, "there is no image and no text in in")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_list_is_no_success(predict, tmp_path, content):
    write(tmp_path, {"list": content})
    assert predict("texts", "list", "--input-format", "paths") == (1, [], "there are no inputs\n")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("from_stdin", [False, True])
def test_a_list_of_paths(predict, tmp_path, end, from_stdin):
    """Case 22."""
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


LINES = [
    {"inputs": "a text"},
    {"text": "another", "parameters": {"min_length": 2}, "id": "second"},
    {"inputs": ["two", "texts"], "id": 7},
]


@pytest.mark.parametrize("arguments", [("in.jsonl",), ("in.ndjson",), ("in.txt", "--input-format", "jsonl")])
def test_json_lines_of_texts(predict, tmp_path, arguments):
    """Case 22: once one summary of the whole file, and exit code 0."""
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


def test_json_lines_of_images(predict, tmp_path):
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
        ("{}", "must have one of"),
        ('{"article": "x", "highlights": "y"}', "it has 'article', 'highlights'"),
        ('{"text": "x", "inputs": "y"}', "must have one of"),
        ('{"text": "x", "model": "y"}', "may have"),
        ('{"inputs": 1}', "'inputs' must be a text, a list of texts or an image in base64, not a number"),
        ('{"inputs": []}', "'inputs' is an empty list"),
        ('{"inputs": ["a", 1]}', "an element of 'inputs' must be a text, not a number"),
        ('{"inputs": null}', "not null"),
        ('{"text": "x", "text": "y"}', "the name 'text' appears twice"),
        ('{"text": "x", "parameters": {"a": 1, "a": 2}}', "the name 'a' appears twice"),
        ('{"text": "x", "parameters": {"a": NaN}}', "NaN is not a number"),
        ('{"text": "x", "parameters": []}', '"parameters" must be an object, not a list'),
        ('{"text": "x", "parameters": false}', '"parameters" must be an object, not false'),
        ("[" * 100_000, "in.jsonl:1 is not valid JSON: "),
        ('{"inputs": [{"name": "text"}]}', "an element of 'inputs' must be a text, not an object"),
        ('{"text": ["x"]}', "'text' must be a text, not a list"),
        ('{"text": "x", "parameters": [1]}', '"parameters" must be an object, not a list'),
        ('{"text": "x", "parameters": {"model": "y"}}', "'model' is not a parameter"),
        ('{"text": "x", "parameters": {"min_length": [1]}}', "min_length must be a number"),
        ('{"image": "absent.jpg"}', "No such file"),
        (json.dumps({"inputs": [base64.b64encode(JPEG).decode()] * 2}), "several images"),
    ],
)
def test_a_bad_line_is_an_error_of_that_line(predict, tmp_path, line, message):
    write(tmp_path, {"in.jsonl": f'{line}\n{{"text": "good"}}'})
    code, records, _ = predict("texts", "in.jsonl", "--ordered")
    assert code == 1
    assert [record["input"] for record in records] == ["in.jsonl:1", "in.jsonl:2"]
    assert message in records[0]["error"]["message"]
    assert texts(records[1:]) == ["good"]


IN_DOUBT = [
    ("in.txt", '{"inputs": "a"}\n{"inputs": "b"}\n', "JSON"),
    ("in", '{\n  "inputs": "a"\n}', "JSON"),
    ("in.txt", '[\n  {"inputs": "a"}\n]', "JSON"),
    ("in.txt", "photos/a.jpg\nphotos/b.jpg\n", "a list of paths"),
    ("in", "in\nin\n", "a list of paths"),
]


def check_doubt(record, fake, reason):
    assert record["error"]["message"].startswith(reason)
    assert "--input-format" in record["error"]["message"]
    assert fake.seen == []


@pytest.mark.parametrize(("name", "content", "what"), IN_DOUBT)
def test_a_text_that_looks_like_something_else_is_asked_for(predict, tmp_path, fake, name, content, what):
    write(tmp_path, {name: content})
    code, [record], _ = predict("texts", name, "--json")
    assert code == 1
    check_doubt(record, fake, f"{name} looks like {what}")
    code, [record], _ = predict("texts", "-", "--json", stdin=content.encode())
    assert code == 1
    check_doubt(record, fake, f"standard input looks like {what}")
    assert texts(predict("texts", name, "--json", "--input-format", "text")[1]) == [content]


@pytest.mark.parametrize("name", ["in.json", "in.csv", "in.html", "in.pdf", "in.docx"])
def test_a_file_of_an_unknown_kind_is_asked_for(predict, tmp_path, fake, name):
    write(tmp_path, {name: "a text"})
    code, [record], _ = predict("texts", name, "--json")
    assert code == 1
    check_doubt(record, fake, f"{name} may be of any kind")
    assert texts(predict("texts", name, "--json", "--input-format", "text")[1]) == ["a text"]


@pytest.mark.parametrize(
    "argument", ["in/absent", "absent.jpg", "my photos/absent.jpg", "fotos", "in/*.jpg", "x.jsonl"]
)
def test_a_missing_file_is_no_text(predict, fake, argument):
    code, [record], _ = predict("texts", argument, "--json")
    assert code == 1
    message = record["error"]["message"]
    assert "No such file" in message or "no file matches" in message
    assert fake.seen == []


@pytest.mark.parametrize("kind", ["image", "paths", "jsonl"])
def test_a_text_is_none_of_the_other_kinds(predict, fake, kind):
    code, [record], _ = predict("texts", "a text", "--json", "--input-format", kind)
    assert (code, record["error"]["type"], fake.seen) == (1, "FileNotFoundError", [])


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
def test_a_text_is_a_text(predict, tmp_path, text):
    assert texts(predict("texts", text, "--json")[1]) == [text]
    assert texts(predict("texts", "-", "--json", stdin=text.encode())[1]) == [text]
    write(tmp_path, {"no-suffix": text})
    assert texts(predict("texts", "no-suffix", "--json")[1]) == [text]


def test_one_word_can_be_sent_as_a_text(predict):
    assert texts(predict("texts", "fotos", "--json", "--input-format", "text")[1]) == ["fotos"]


def test_several_kinds_of_arguments(predict, tmp_path):
    write(
        tmp_path, {"in/a.txt": "from a folder", "b.txt": "from a file", "c.jsonl": '{"text": "from a list"}'}
    )
    code, records, _ = predict("texts", "in", "b.txt", "c.jsonl", "a text", "--ordered")
    assert (code, texts(records)) == (0, ["from a folder", "from a file", "from a list", "a text"])


def test_lines_for_people_if_they_are_asked_for(predict, tmp_path):
    write(tmp_path, {"in/a.png": PNG})
    code, lines, _ = predict("images", "in", "--no-json", json_lines=False)
    assert (code, lines[0]) == (0, "in/a.png")
    assert "100 bytes, 0.5" in lines[1]


def test_lines_of_a_pipe_are_answered_as_they_come(fake, capsys, monkeypatch):
    """The second line is written only when the first one is answered."""
    reading, writing = os.pipe()
    answered = threading.Event()

    def answer(request):
        answered.set()
        return fake.rest(request)

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


def test_a_short_queue_loses_none(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.005)
    write(tmp_path, {f"in/{number}.jpg": str(number) for number in range(150)})
    queue = ShortQueue(queue_size=1, batch_size=1, seconds=0.01)
    with over_http(queue.answer) as port:
        assert main(["predict", "images", str(tmp_path / "in"), "--port", str(port)]) == 0
    queue.close()
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == 150
    assert all(record["input"].endswith(f"/{record['labels'][0]['label']}.jpg") for record in records)
    assert queue.refused > 0


def test_a_server_that_is_not_there_is_said_once(tmp_path, capsys):
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
def test_the_bar_is_for_terminals_only(predict, tmp_path, monkeypatch, is_terminal):
    """Case 22."""
    write(tmp_path, {"in/a.png": PNG, "in/b.png": PNG})
    monkeypatch.setenv("TERM", "xterm")
    stderr = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    code, records, _ = predict("images", "in")
    assert code == 0
    assert names(records) == ["in/a.png", "in/b.png"]
    assert ("2/2" in stderr.getvalue()) is is_terminal


def test_images_are_known_by_their_first_bytes():
    for head in (PNG, JPEG, b"GIF89a", b"BM\x46\0\0\0\0\0\0\0\x36", b"II*\0", b"MM\0*", b"\0\0\1\0"):
        assert is_image(head)
    assert is_image(b"RIFF\0\0\0\0WEBPVP8 ")
    assert is_image(b"\0\0\0\x1cftypavif")
    for head in (b"", b"BMW will build", b"RIFF\0\0\0\0WAVE", b"\0\0\0\x1cftypmp42", b"text"):
        assert not is_image(head)


@pytest.mark.parametrize("text", ["", "a text", "abcd", "Rain fell.", "ftyp" * 20])
def test_a_text_is_no_image_in_base64(text):
    assert base64_image(text) is None


def test_base64_with_line_breaks():
    assert base64_image(base64.encodebytes(JPEG).decode()) == JPEG


def test_the_errors_of_a_server_keep_the_id(capsys, tmp_path):
    write(tmp_path, {"in.jsonl": '{"text": "x", "id": "a"}'})
    with over_http(
        lambda request: httpx.Response(400, json={"code": 400, "type": "InvalidText", "message": "m"})
    ) as port:
        assert main(["predict", "texts", str(tmp_path / "in.jsonl"), "--port", str(port)]) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["id"], record["error"]["type"]) == ("a", "InvalidText")
