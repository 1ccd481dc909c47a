"""nginx.conf for another container: its limits follow from TorchServe's memory."""

import re
import stat

import pytest

from torchserve_models.cli import main
from torchserve_models.gateway.nginx import container_config
from torchserve_models.gateway.nginx.config import NginxError
from torchserve_models.serving.run_config.memory_budget import GIB, compute_budget


@pytest.fixture
def budget(monkeypatch):
    """Return the memory budget of a TorchServe container of 3 GiB."""
    memory_budget = compute_budget(3 * GIB, has_edge=False)
    monkeypatch.setattr(container_config, "supervised_body_bytes", lambda _: memory_budget.body_bytes)
    return memory_budget


def render(tmp_path, *options):
    output = tmp_path / "nginx.conf"
    assert main(["gateway-config", "--output", str(output), "--resolver", "127.0.0.11", *options]) == 0
    assert list(tmp_path.iterdir()) == [output]
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    return output.read_text()


def test_bodies_in_torchserve_fit_the_memory_budget(tmp_path, budget):
    """The worst case: every server at max_conns with the largest bodies."""
    text = render(tmp_path)
    sizes = {"": 100_000, "_medium": 1_000_000, "_large": 4_200_000, "_huge": 16 * 2**20}
    total_bytes = 0
    for name, servers in re.findall(r"upstream torchserve(\w*) \{(.*?)\}", text, re.DOTALL):
        (bodies,) = re.findall(r"max_conns=(\d+);", servers)
        total_bytes += sizes[name] * int(bodies)
    assert 0.5 * budget.body_bytes < total_bytes <= budget.body_bytes  # at least one body of each size


def test_configuration_contains_the_service_addresses(tmp_path, budget, monkeypatch):
    monkeypatch.setenv("GATEWAY_KEY", "secret-1")
    text = render(tmp_path, "--client-requests=7", "--image-model=my-model", "--work=/cache")
    for part in (
        "listen 0.0.0.0:8000 ",
        "listen 0.0.0.0:7000 http2 ",
        "listen 0.0.0.0:8091;",
        "server torchserve:8090 resolve max_fails=0;",
        "server torchserve:8092 resolve max_fails=0;",
        "syslog:server=torchserve:8083",
        "limit_conn client_requests 7;",
        'X-Gateway-Key "secret-1"',
        "/predict my-model;",
        "/model my-model;",
        "client_body_temp_path /cache/body;",
    ):
        assert part in text, part


def test_body_memory_option_overrides_the_budget(tmp_path, budget):
    assert "max_conns=1288;" in render(tmp_path, "--body-memory=1024")


def test_missing_supervisor_is_an_error_and_writes_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(container_config, "supervised_body_bytes", lambda _: None)
    output = tmp_path / "nginx.conf"
    assert main(["gateway-config", "--output", str(output), "--resolver", "127.0.0.11", "--wait", "0"]) == 1
    assert "http://127.0.0.1:8083 did not report its memory budget within 0 s" in capsys.readouterr().err
    assert not output.exists()


def test_starting_supervisor_is_waited_for(monkeypatch):
    answers = iter([None, None, 5])
    monkeypatch.setattr(container_config, "supervised_body_bytes", lambda _: next(answers))
    monkeypatch.setattr(container_config, "_RETRY_S", 0.0)
    assert container_config.wait_for_body_bytes("http://127.0.0.1:1", 30.0) == 5


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("search a b\nnameserver 127.0.0.11\nnameserver 10.0.0.1\n", "127.0.0.11"),
        ("# nameserver 1.1.1.1\noptions ndots:0\nnameserver fd00::1", "[fd00::1]"),
    ],
)
def test_resolver_is_the_first_name_server_of_the_container(tmp_path, text, server):
    (tmp_path / "resolv.conf").write_text(text)
    assert container_config.find_name_server(tmp_path / "resolv.conf") == server


def test_missing_name_server_is_an_error(tmp_path):
    (tmp_path / "resolv.conf").write_text("options ndots:0\n")
    with pytest.raises(NginxError, match="--resolver"):
        container_config.find_name_server(tmp_path / "resolv.conf")


def test_invalid_server_is_rejected(tmp_path, budget, capsys):
    assert main(["gateway-config", "--output", str(tmp_path / "nginx.conf"), "--server", "a b"]) == 1
    assert "'a b' is neither a host nor a URL" in capsys.readouterr().err
