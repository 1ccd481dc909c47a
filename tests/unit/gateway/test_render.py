"""nginx.conf for another container: its limits follow from TorchServe's memory."""

import re
import stat

import pytest

from torchserve_models.gateway import render
from torchserve_models.gateway.nginx import NginxError
from torchserve_models.serving.run_config.memory_budget import GIB, compute_budget


@pytest.fixture
def budget(monkeypatch):
    """TorchServe's container has 3 GiB."""
    found = compute_budget(3 * GIB, has_edge=False)
    monkeypatch.setattr(render, "supervised_body_bytes", lambda _: found.body_bytes)
    return found


def rendered(tmp_path, *options):
    output = tmp_path / "nginx.conf"
    assert render.main(["--output", str(output), "--resolver", "127.0.0.11", *options]) == 0
    assert list(tmp_path.iterdir()) == [output]
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    return output.read_text()


def test_what_torchserve_holds_fits_its_budget(tmp_path, budget):
    """Every server at its max_conns, each with the largest body of its size."""
    text = rendered(tmp_path)
    sizes = {"": 100_000, "_medium": 1_000_000, "_large": 4_200_000, "_huge": 16 * 2**20}
    held = 0
    for name, servers in re.findall(r"upstream torchserve(\w*) \{(.*?)\}", text, re.DOTALL):
        (bodies,) = re.findall(r"max_conns=(\d+);", servers)
        held += sizes[name.removeprefix("_grpc")] * int(bodies)
    assert 0.5 * budget.body_bytes < held <= 1.1 * budget.body_bytes  # at least one body of each size


def test_it_names_the_services(tmp_path, budget, monkeypatch):
    monkeypatch.setenv("GATEWAY_KEY", "secret-1")
    text = rendered(tmp_path, "--client-requests=7", "--image-model=my-model", "--work=/cache")
    for part in (
        "listen 0.0.0.0:8000 ",
        "listen 0.0.0.0:7000 http2 ",
        "listen 0.0.0.0:8091;",
        "server torchserve:8090 resolve max_fails=0;",
        "syslog:server=torchserve:8083",
        "limit_conn client_requests 7;",
        'X-Gateway-Key "secret-1"',
        "/predict my-model;",
        "/model my-model;",
        "client_body_temp_path /cache/body;",
    ):
        assert part in text, part


def test_a_number_of_the_users_takes_precedence(tmp_path, budget):
    assert "max_conns=1288;" in rendered(tmp_path, "--body-memory=1024")


def test_without_a_supervisor_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(render, "supervised_body_bytes", lambda _: None)
    output = tmp_path / "nginx.conf"
    assert render.main(["--output", str(output), "--resolver", "127.0.0.11", "--wait", "0"]) == 1
    assert "no supervisor has told its memory budget at http://127.0.0.1:8083" in capsys.readouterr().err
    assert not output.exists()


def test_it_waits_for_a_supervisor_that_starts(monkeypatch):
    answers = iter([None, None, 5])
    monkeypatch.setattr(render, "supervised_body_bytes", lambda _: next(answers))
    monkeypatch.setattr(render, "_RETRY_S", 0.0)
    assert render._body_bytes("http://127.0.0.1:1", 30.0) == 5


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("search a b\nnameserver 127.0.0.11\nnameserver 10.0.0.1\n", "127.0.0.11"),
        ("# nameserver 1.1.1.1\noptions ndots:0\nnameserver fd00::1", "[fd00::1]"),
    ],
)
def test_the_resolver_is_the_first_of_the_container(tmp_path, text, server):
    (tmp_path / "resolv.conf").write_text(text)
    assert render._name_server(tmp_path / "resolv.conf") == server


def test_a_container_without_a_resolver(tmp_path):
    (tmp_path / "resolv.conf").write_text("options ndots:0\n")
    with pytest.raises(NginxError, match="--resolver"):
        render._name_server(tmp_path / "resolv.conf")


def test_a_server_that_is_no_host_is_refused(tmp_path, budget, capsys):
    assert render.main(["--output", str(tmp_path / "nginx.conf"), "--server", "a b"]) == 1
    assert "'a b' is neither a host nor a URL" in capsys.readouterr().err
