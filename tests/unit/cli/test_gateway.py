"""The commands of the gateway: listen addresses and the selected server."""

import pytest

from torchserve_models.cli import main
from torchserve_models.client import Endpoints
from torchserve_models.gateway.supervision import edge_supervisor
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.state import ProcessIdentity, RunState


class ConfigCaptured(Exception):
    """Ends the command, with the configuration as its argument."""


@pytest.fixture
def started(monkeypatch):
    """Return a function that runs the command until it would start nginx, and returns nginx's configuration."""

    def stop(config, *_, **__):
        raise ConfigCaptured(config)

    monkeypatch.setattr(edge_supervisor, "EdgeSupervisor", stop)

    def run(*arguments):
        with pytest.raises(ConfigCaptured) as caught:
            main(["gateway", *map(str, arguments)])
        return caught.value.args[0]

    return run


def test_offset_shifts_ports_of_gateway_and_server(started, tmp_path):
    config = started("--run-dir", tmp_path, "--port-offset", "100")
    assert (config.http, config.grpc) == ("127.0.0.1:8100", "127.0.0.1:7100")
    assert config.endpoints == Endpoints.at(port_offset=100)


def test_port_option_takes_precedence_over_offset(started, tmp_path):
    config = started("--run-dir", tmp_path, "--port-offset", "100", "--port", "9", "--host", "::1")
    assert (config.http, config.grpc) == ("[::1]:9", "[::1]:7100")


@pytest.mark.parametrize(
    "arguments",
    [("--port", "-1"), ("--grpc-port", "65536"), ("--gateway-port", "x"), ("--port-offset", "58000")],
)
def test_invalid_port_is_rejected(tmp_path, capsys, arguments):
    assert main(["gateway", "--run-dir", str(tmp_path), *arguments]) == 2
    assert "is not a port number (1-65535)" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["8090", ":8090", "host", "host:x", "host:0"])
def test_gateway_app_requires_listen_address_with_host(capsys, address):
    """A port without a host could be understood as all addresses of the machine."""
    assert main(["gateway-app", "--listen", address]) == 2
    assert "--listen" in capsys.readouterr().err


def test_gateway_app_requires_the_listener_of_the_cache(capsys):
    assert main(["gateway-app", "--cache-size", "1m"]) == 2
    assert "--cache-size requires --uncached" in capsys.readouterr().err


def test_run_folder_selects_its_server(started, tmp_path):
    run, there = RunDir(tmp_path), Endpoints.at(port_offset=300)
    RunState("ready", "", ProcessIdentity(1, ""), None, there, (), "", "/nowhere").write(run.state)
    config = started("--run-dir", tmp_path, "--port-offset", "100")
    assert (config.http, config.endpoints) == ("127.0.0.1:8100", there)
