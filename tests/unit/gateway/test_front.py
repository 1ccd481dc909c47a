"""Where scripts/gateway listens, and which server it is in front of."""

import pytest

from torchserve_models.client import Endpoints
from torchserve_models.gateway import __main__ as gateway_main
from torchserve_models.gateway import front
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.state import Identity, State


class Seen(Exception):
    """Ends the command once its addresses are known."""


@pytest.fixture
def started(monkeypatch):
    """Runs the command until it would start nginx; gives what it would start."""

    def stop(made, *_, **__):
        raise Seen(made)

    monkeypatch.setattr(front, "Running", stop)

    def run(*arguments):
        with pytest.raises(Seen) as caught:
            front.main([str(argument) for argument in arguments])
        return caught.value.args[0]

    return run


def test_the_offset_moves_both_ports_and_those_of_the_server_to_come(started, tmp_path):
    made = started("--run-dir", tmp_path, "--port-offset", "100")
    assert (made.http, made.grpc) == ("127.0.0.1:8100", "127.0.0.1:7100")
    assert made.endpoints == Endpoints.at(port_offset=100)


def test_a_port_that_is_given_stays(started, tmp_path):
    made = started("--run-dir", tmp_path, "--port-offset", "100", "--port", "9", "--host", "::1")
    assert (made.http, made.grpc) == ("[::1]:9", "[::1]:7100")


@pytest.mark.parametrize(
    "arguments",
    [("--port", "-1"), ("--grpc-port", "65536"), ("--gateway-port", "x"), ("--port-offset", "58000")],
)
def test_what_is_no_port_is_refused(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        front.main(["--run-dir", str(tmp_path), *arguments])
    assert caught.value.code == 2
    assert "is not a port number (1-65535)" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["8090", ":8090", "host", "host:x", "host:0"])
def test_the_gateway_alone_needs_an_address_to_listen_on(capsys, address):
    """A port alone would have meant every address of the machine."""
    with pytest.raises(SystemExit) as caught:
        gateway_main.main(["--listen", address])
    assert caught.value.code == 2
    assert "--listen" in capsys.readouterr().err


def test_the_server_of_the_run_folder(started, tmp_path):
    run, there = RunDir(tmp_path), Endpoints.at(port_offset=300)
    State("ready", "", Identity(1, ""), None, there, (), "", "/nowhere").write(run.state)
    made = started("--run-dir", tmp_path, "--port-offset", "100")
    assert (made.http, made.endpoints) == ("127.0.0.1:8100", there)
