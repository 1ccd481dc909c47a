"""Where the commands look for the server."""

import argparse
import json

import pytest

from tests.unit.client.fake_torchserve import over_http
from torchserve_models.client import Endpoints, cli_options
from torchserve_models.client.cli import main
from torchserve_models.client.cli_options import connection, endpoints


@pytest.fixture(autouse=True)
def default_run_dir(tmp_path, monkeypatch):
    folder = tmp_path / "default"
    folder.mkdir()
    monkeypatch.setattr(cli_options, "RUN_DIR", folder)
    return folder


def chosen(*arguments):
    return endpoints(argparse.ArgumentParser(parents=[connection()]).parse_args(arguments))


def write_state(folder, there):
    folder.mkdir(exist_ok=True)
    (folder / "state.json").write_text(json.dumps({"endpoints": vars(there)}))


def test_nothing_is_given():
    assert chosen() == Endpoints()


def test_the_server_of_the_default_run_folder(default_run_dir):
    there = Endpoints.at(port_offset=100)
    write_state(default_run_dir, there)
    assert chosen() == there
    assert chosen("--host", "other") == Endpoints.at("other")
    assert chosen("--port-offset", "5") == Endpoints.at(port_offset=5)
    assert chosen("--port", "9") == Endpoints.at(inference_port=9)
    assert chosen("--url", "http://other:8080") == Endpoints.at("other")


def test_the_server_of_a_run_folder(tmp_path):
    there = Endpoints.at("::1", port_offset=200)
    write_state(tmp_path / "run", there)
    assert chosen("--run-dir", str(tmp_path / "run")) == there
    assert chosen("--run-dir", str(tmp_path / "run"), "--port", "9").inference == "http://[::1]:9"
    assert chosen("--run-dir", str(tmp_path / "run"), "--port-offset", "200") == there
    with pytest.raises(ValueError, match="not at port 8081; leave --port-offset out"):
        chosen("--run-dir", str(tmp_path / "run"), "--port-offset", "1")
    with pytest.raises(ValueError, match="no server has run in"):
        chosen("--run-dir", str(tmp_path / "absent"))


def test_one_url_with_ports():
    assert chosen("--url", "https://there").is_gateway
    assert chosen("--url", "https://there", "--grpc-port", "443").grpc_inference == "https://there:443"
    assert chosen("--url", "http://there:8000", "--grpc-port", "7").grpc_inference == "there:7"
    assert chosen("--url", "http://there/a", "--management-port", "8081").management == "http://there:8081/a"


def test_a_host_with_ports():
    found = chosen("--host", "there", "--port-offset", "100", "--grpc-port", "9")
    assert found == Endpoints.at("there", port_offset=100, grpc_port=9 - 100)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--run-dir", "absent"],
        ["--url", "http://there:8080", "--port-offset", "100"],
        ["--host", "there:8080"],
        ["--url", "http://there:9000", "--protocol", "grpc"],
    ],
)
def test_what_is_no_address_is_a_wrong_command_line(arguments, capsys):
    assert main(["manage", "list", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments", [["--url", "http://a", "--host", "b"], ["--url", "http://a", "--run-dir", "b"]]
)
def test_one_place_only(arguments, capsys):
    assert main(["manage", "list", *arguments]) == 2
    assert "not allowed with" in capsys.readouterr().err


def test_the_commands_find_the_server_by_its_run_folder_or_url(fake, tmp_path, capsys):
    """Case 23."""
    with over_http(fake.rest) as port:
        url = f"http://127.0.0.1:{port}"
        write_state(tmp_path / "run", Endpoints(url, url, url))
        assert main(["manage", "list", "--run-dir", str(tmp_path / "run")]) == 0
        assert main(["manage", "list", "--url", url]) == 0
        assert main(["predict", "texts", "a text", "--url", url]) == 0
    assert capsys.readouterr().out.count("texts.mar") == 2
