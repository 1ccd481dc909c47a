"""The commands `predict` and `manage` against a fake server."""

import io
import json
import sys

import httpx
import pytest

from tests.unit.client.fake_grpc import over_grpc
from tests.unit.client.fake_torchserve import over_http
from torchserve_models.cli import main
from torchserve_models.cli.predict import parse_parameter

PNG = b"\x89PNG\r\n\x1a\n" + bytes(92)


@pytest.fixture
def options(fake):
    """Return the options with the ports of the fake server."""
    with over_grpc(fake) as endpoints, over_http(fake.handle_rest) as port:
        grpc_port = endpoints.grpc_inference.rpartition(":")[2]
        yield [
            *("--port", str(port), "--management-port", str(port), "--metrics-port", str(port)),
            *("--grpc-port", grpc_port, "--grpc-management-port", grpc_port),
        ]


protocols = pytest.mark.parametrize("protocol", ["rest", "grpc", "open-inference", "open-inference-grpc"])


@protocols
def test_predict_prints_labels_of_image(options, protocol, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    photo.write_bytes(PNG)
    assert main(["predict", "images", str(photo), "--top-k", "2", "--protocol", protocol, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "   50.0%  ████████████              100 bytes, 0.5",
        "   25.0%  ██████                    100 bytes, 0.25",
    ]


@pytest.mark.parametrize("also", [[], ["--param", "top_k=3"]])
def test_top_k_is_sent_with_text(options, also, capsys):
    """A real summarizer would reject the parameter; the fake one answers with the parameters that it received."""
    assert main(["predict", "texts", "a text.", "--top-k", "2", *also, *options]) == 0
    assert 'a text. {"top_k": 2}' in capsys.readouterr().out


@protocols
def test_predict_reads_texts_of_argument_file_and_stdin(options, protocol, tmp_path, capsys, monkeypatch):
    report = tmp_path / "report.txt"
    report.write_text("\ufefffrom a file", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("from stdin é".encode())))
    arguments = ["predict", "texts", "a text.", str(report), "-", "--param", "min_length=2", "--json"]
    assert main([*arguments, "--protocol", protocol, *options]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["summaries"][0]["text"] for record in records] == [
        f'{text} {{"min_length": 2}}' for text in ("a text.", "from a file", "from stdin é")
    ]


def test_failing_file_does_not_stop_the_others(options, tmp_path, capsys):
    good, bad, broken = (tmp_path / name for name in ("good.jpg", "bad.jpg", "broken.txt"))
    good.write_bytes(b"good")
    bad.write_bytes(b"bad")
    broken.write_bytes(b"\xe9\x00")
    names = [str(bad), str(tmp_path / "absent.jpg"), str(broken), str(good)]
    assert main(["predict", "images", *names, *options]) == 1
    output = capsys.readouterr()
    assert "4 bytes, 0.5" in output.out
    assert "bad.jpg: InvalidImage (400): these bytes are no image" in output.err
    assert "absent.jpg: No such file" in output.err
    assert "broken.txt: InvalidText (400): the input is not UTF-8 text" in output.err
    assert "3 of 4 inputs failed" in output.err
    assert main(["predict", "images", *names, "--json", *options]) == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record.get("error", {}).get("type") for record in records] == [
        "InvalidImage",
        "FileNotFoundError",
        "InvalidText",
        None,
    ]


def test_image_without_suffix_is_detected_by_first_bytes(options, fake, tmp_path):
    photo = tmp_path / "no-suffix"
    photo.write_bytes(PNG)
    assert main(["predict", "images", str(photo), *options]) == 0


def test_truncation_of_long_text_is_reported(options, capsys):
    assert main(["predict", "texts", "long " * 1000, *options]) == 0
    assert "was truncated" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["predict", "texts", "hello there"], ["manage", "list"]])
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_missing_server_is_reported_with_start_hint(command, protocol, capsys):
    ports = ["--port", "1", "--management-port", "1", "--grpc-port", "1", "--grpc-management-port", "1"]
    assert main([*command, "--protocol", protocol, *ports]) == 1
    error = capsys.readouterr().err
    assert "no server answers at " in error
    assert "127.0.0.1:1" in error
    assert error.count("scripts/serve") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["predict"],
        ["predict", "m"],
        ["predict", "m", "x", "--param", "novalue"],
        *(
            ["predict", "m", "x", "--param", f"{name}=2"]
            for name in ("model", "image", "text", "version", "timeout", "headers", "self")
        ),
        *(["predict", "m", "x", "--port", port] for port in ("0", "-1", "65536", "99999", "http")),
        ["manage", "list", "--grpc-management-port", "65536"],
        ["predict", "m", "x", "--timeout", "-1"],
        ["predict", "m", "x", "--protocol", "http"],
        ["manage"],
        ["manage", "scale", "m"],
        ["manage", "replace", "m"],
        ["manage", "unregister", "m", "--drain-timeout", "soon"],
    ],
)
def test_invalid_command_line_exits_with_2(arguments, capsys):
    assert main(arguments) == 2
    assert "Usage: torchserve-models" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1", ("a", 1)),
        ("a=1.5", ("a", 1.5)),
        ("a=true", ("a", True)),
        ("a=never", ("a", "never")),
        ("a=b=c", ("a", "b=c")),
        ("a=", ("a", "")),
        ("a=[1]", ("a", "[1]")),
    ],
)
def test_parameter_value_is_parsed_as_json(text, expected):
    name, value = parse_parameter(text)
    assert (name, value, type(value)) == (*expected, type(expected[1]))


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_manage_commands_print_results(options, protocol, capsys):
    def manage(*arguments):
        assert main(["manage", *arguments, "--protocol", protocol, *options]) == 0
        return capsys.readouterr().out

    assert manage("list").split() == ["images", "images.mar", "texts", "texts.mar"]
    text = manage("describe", "texts", "--metadata")
    assert "texts 1.0: ready" in text
    assert 'engine: "torch"' in text
    versions = json.loads(manage("describe", "texts", "--all", "--json"))
    assert [version["version"] for version in versions] == ["1.0", "2.0"]
    assert manage("scale", "texts", "2", "--max", "3") == "texts: 2 to 3 workers\n"
    assert manage("scale", "texts", "1", "--now") == "texts: 1 workers\n"
    assert 'Model "new" Version: 1.0 registered' in manage("register", "new.mar", "--no-wait")
    assert "default of texts is 2.0" in manage("set-default", "texts", "2.0")
    assert "unregistered texts" in manage("unregister", "texts", "--version", "1.0", "--drain-timeout", "9")
    assert manage("replace", "images", "images-3.mar") == "images: version 3.0 replaces 1.0\n"
    assert "unregistered new" in manage("unregister", "new", "--now")
    assert "handler_requests_total  {ModelName=texts, Hostname=here}" in manage("metrics")


def test_manage_prints_error_of_server(options, capsys):
    assert main(["manage", "describe", "absent", *options]) == 1
    assert capsys.readouterr().err == "ModelNotFound (404): Model not found: absent\n"


def test_invalid_metrics_are_reported(capsys):
    with over_http(lambda request: httpx.Response(200, content=b"<html>")) as port:
        assert main(["manage", "metrics", "--metrics-port", str(port)]) == 1
    assert "not in the Prometheus text format" in capsys.readouterr().err
