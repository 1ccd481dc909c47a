"""The options that select the server of a command."""

import json

import pytest

from tests.unit.cli.parsing import parse_options
from tests.unit.client.fake_torchserve import over_http
from torchserve_models.cli import main, options
from torchserve_models.cli.options import Connection
from torchserve_models.client import Endpoints


@pytest.fixture(autouse=True)
def default_run_dir(tmp_path, monkeypatch):
    folder = tmp_path / "default"
    folder.mkdir()
    monkeypatch.setattr(options, "RUN_DIR", folder)
    return folder


def select_endpoints(*arguments):
    """Return the endpoints of the options in `arguments`."""
    return parse_options(Connection, *arguments).settings().endpoints


def write_state(folder, there):
    folder.mkdir(exist_ok=True)
    (folder / "state.json").write_text(json.dumps({"endpoints": vars(there)}))


def test_default_ports_are_used_without_options():
    assert select_endpoints() == Endpoints()


def test_server_of_default_run_folder_is_selected_without_options(default_run_dir):
    there = Endpoints.at(port_offset=100)
    write_state(default_run_dir, there)
    assert select_endpoints() == there
    assert select_endpoints("--host", "other") == Endpoints.at("other")
    assert select_endpoints("--port-offset", "5") == Endpoints.at(port_offset=5)
    assert select_endpoints("--port", "9") == Endpoints.at(inference_port=9)
    assert select_endpoints("--url", "http://other:8080") == Endpoints.at("other")


def test_run_dir_selects_its_server(tmp_path):
    there = Endpoints.at("::1", port_offset=200)
    write_state(tmp_path / "run", there)
    assert select_endpoints("--run-dir", str(tmp_path / "run")) == there
    assert select_endpoints("--run-dir", str(tmp_path / "run"), "--port", "9").inference == "http://[::1]:9"
    assert select_endpoints("--run-dir", str(tmp_path / "run"), "--port-offset", "200") == there
    with pytest.raises(ValueError, match="not at port 8081; remove --port-offset"):
        select_endpoints("--run-dir", str(tmp_path / "run"), "--port-offset", "1")
    with pytest.raises(ValueError, match="no server has run in"):
        select_endpoints("--run-dir", str(tmp_path / "absent"))


def test_ports_change_addresses_of_url():
    assert select_endpoints("--url", "https://there").is_gateway
    assert (
        select_endpoints("--url", "https://there", "--grpc-port", "443").grpc_inference == "https://there:443"
    )
    assert select_endpoints("--url", "http://there:8000", "--grpc-port", "7").grpc_inference == "there:7"
    assert (
        select_endpoints("--url", "http://there/a", "--management-port", "8081").management
        == "http://there:8081/a"
    )


def test_ports_change_addresses_of_host():
    endpoints = select_endpoints("--host", "there", "--port-offset", "100", "--grpc-port", "9")
    assert endpoints == Endpoints.at("there", port_offset=100, grpc_port=9 - 100)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--run-dir", "absent"],
        ["--url", "http://there:8080", "--port-offset", "100"],
        ["--host", "there:8080"],
        ["--url", "http://there:9000", "--protocol", "grpc"],
    ],
)
def test_invalid_address_is_rejected(arguments, capsys):
    assert main(["manage", "list", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments", [["--url", "http://a", "--host", "b"], ["--url", "http://a", "--run-dir", "b"]]
)
def test_several_server_locations_are_rejected(arguments, capsys):
    assert main(["manage", "list", *arguments]) == 2
    assert "not allowed with" in capsys.readouterr().err


def test_commands_use_server_of_run_folder_or_url(fake, tmp_path, capsys):
    with over_http(fake.handle_rest) as port:
        url = f"http://127.0.0.1:{port}"
        write_state(tmp_path / "run", Endpoints(url, url, url))
        assert main(["manage", "list", "--run-dir", str(tmp_path / "run")]) == 0
        assert main(["manage", "list", "--url", url]) == 0
        assert main(["predict", "texts", "a text", "--url", url]) == 0
    assert capsys.readouterr().out.count("texts.mar") == 2
