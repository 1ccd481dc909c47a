"""Endpoints of a host, of one URL and of a run folder."""

import json
import re

import httpx
import pytest

from tests.unit.client.fake_torchserve import over_http
from torchserve_models.client import AsyncClient, Client, Endpoints, NotAllowed, Unavailable, UnexpectedAnswer
from torchserve_models.client.endpoints import has_grpc_management


@pytest.mark.parametrize(
    "address",
    [
        "http://server:8080",
        "http://server:8080/",
        "server",
        "HTTP://server:8080",
        " server",
        "http://server:8080\n",
    ],
)
def test_torchserve_url_implies_all_its_ports(address):
    assert Endpoints.of(address) == Endpoints.at("server")


@pytest.mark.parametrize(
    ("url", "grpc"),
    [
        ("http://server:8000", "server:7000"),
        ("https://server:8000", "https://server:7000"),
        ("http://[::1]:8000", "[::1]:7000"),
        ("https://server", ""),
        ("http://server:8180", ""),
        ("https://server:8080", ""),
        ("http://server:8080/models-of/one", ""),
    ],
)
def test_other_url_is_a_gateway(url, grpc):
    endpoints = Endpoints.of(url + "/")
    assert endpoints.is_gateway
    assert endpoints == Endpoints(url, url, url, grpc, "", url)
    assert not has_grpc_management(endpoints)


def test_gateway_url_implies_its_grpc_port():
    assert Endpoints.gateway("https://server", grpc_port=443).grpc_inference == "https://server:443"


@pytest.mark.parametrize(
    "address",
    [
        "", "server:8080", "server/path", "http://", "ftp://server", "http://server:port", "http://server:99999",
        "http://me:secret@server", "http://server?x=1", "a b", "[::1]:8000", "http://ser ver:8000", "http://server:0",
        "http://server:8000\n/x", "http://xn--ü", "http:server:8000", "//server:80", "http://[::1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_invalid_address_is_rejected(kind, address):
    with pytest.raises(ValueError, match=r"URL|user name"):
        kind(address)


@pytest.mark.parametrize(
    ("address", "example"),
    [
        ("server:8080", "http://server:8080"),
        ("10.0.0.1:8000", "http://10.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("http:server:8000", "http://127.0.0.1:8000"),
        ("server/path", "http://127.0.0.1:8000"),
    ],
)
def test_address_without_scheme_is_rejected_with_its_url(address, example):
    with pytest.raises(ValueError, match=f"such as {re.escape(example)}$"):
        Client(address)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_host_and_endpoints_together_are_rejected(kind):
    assert kind().settings.endpoints == Endpoints()
    assert kind("10.0.0.1").settings.endpoints == Endpoints.at("10.0.0.1")
    with pytest.raises(ValueError, match="not both"):
        kind("http://server:8000", endpoints=Endpoints())
    with pytest.raises(ValueError, match="gRPC port of https://server is not known"):
        kind("https://server", protocol="grpc")
    assert kind("http://server:8000", protocol="grpc").settings.endpoints.grpc_inference == "server:7000"


def test_port_offset_shifts_all_ports():
    assert Endpoints.at("server", port_offset=100) == Endpoints(
        "http://server:8180", "http://server:8181", "http://server:8182", "server:7170", "server:7171",
        "http://server:8183",
    )  # fmt: skip


@pytest.mark.parametrize("ports", [{"port_offset": 58_000}, {"port_offset": -8080}, {"grpc_port": 0}])
def test_invalid_port_is_rejected(ports):
    with pytest.raises(ValueError, match=r"is not a port number \(1-65535\)"):
        Endpoints.at("server", **ports)


def test_endpoints_of_run_dir_are_read_from_its_state(tmp_path):
    with pytest.raises(ValueError, match=r"no server has run in .*No such file"):
        Endpoints.of_run_dir(tmp_path)
    there = Endpoints.at(port_offset=300)
    (tmp_path / "state.json").write_text(json.dumps({"phase": "ready", "endpoints": vars(there)}))
    assert Endpoints.of_run_dir(tmp_path) == there
    for text in ("{}", "[]", "x", '{"endpoints": {"inference": "x"}}'):
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(ValueError, match="does not contain the addresses"):
            Endpoints.of_run_dir(tmp_path)


def test_client_of_gateway_url_asks_gateway_for_readiness(call, fake):
    reason = None

    def gateway(request):
        paths.append(request.url.path)
        if request.url.path.startswith("/readyz"):
            body = {"ready": reason is None} | ({"reason": reason} if reason else {})
            return httpx.Response(503 if reason else 200, json=body)
        return fake.handle_rest(request)

    with over_http(gateway) as port:
        url = f"http://127.0.0.1:{port}"
        paths = []
        assert call(lambda c: c.classify("images", b"x"), host=url)
        assert call(lambda c: c.ready(), host=url)
        assert call(lambda c: c.ready("images", "1.0"), host=url).reason == ""
        reason = "images: 0 of 2 workers are READY"
        answer = call(lambda c: c.ready("images"), host=url)
        assert not answer
        assert answer.reason == reason
        assert str(answer) == f"not ready: {reason}"
        with pytest.raises(NotAllowed, match=f"the gRPC address of {url} is not known"):
            call(lambda c: c.model_ready("images"), host=url)
    assert paths == ["/predictions/images", "/readyz", "/readyz/images/1.0", "/readyz/images"]


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>the page of another server"), (200, b"[]"), (200, b"{}"), (200, b'{"ready": false}')],
)
def test_readiness_of_another_program_raises_unexpected_answer(call, status, body):
    """A web server may answer every path with 200 and a page."""
    transport = httpx.MockTransport(lambda request: httpx.Response(status, content=body))
    with pytest.raises(UnexpectedAnswer):
        call(lambda c: c.ready(), host="http://server:8000", transport=transport)


def test_redirect_error_names_address(call):
    def redirect(request):
        return httpx.Response(301, headers={"Location": f"https://server{request.url.path}"})

    with pytest.raises(UnexpectedAnswer, match=r"redirects to https://server/predictions/images, .* address"):
        call(
            lambda c: c.classify("images", b"x"),
            host="http://server:8000",
            transport=httpx.MockTransport(redirect),
        )


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://localhost:1/prefix"])
def test_refused_connection_error_names_address(call, address):
    where = address.removesuffix("/prefix")
    with pytest.raises(Unavailable, match=f"no server answers at {where} "):
        call(lambda c: c.classify("images", b"x"), host=address, retries=0)
    answer = call(lambda c: c.ready(), host=address)
    assert not answer
    assert f"no server answers at {where} " in answer.reason
