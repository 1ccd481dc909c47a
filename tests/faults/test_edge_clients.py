"""Clients of nginx: their identification, their access to the management API, and reports of disconnects."""

import asyncio
import re
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.faults.edge import Answer, Edge, FakeServer, address, edge, needs_nginx
from tests.tools import needs
from torchserve_models.client import Endpoints
from torchserve_models.gateway.nginx.config import Limits, Tls

pytestmark = needs_nginx
PATH = "/predictions/resnet-50"


@contextmanager
def http(running: Edge) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=30) as client:
        yield client


@pytest.fixture
def torchserve() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


def test_client_disconnect_is_reported(torchserve):
    torchserve.answer = lambda _: Answer(seconds=5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        at = Endpoints(
            inference=f"http://{torchserve.address}",
            health=f"http://127.0.0.1:{receiver.getsockname()[1]}",
        )
        with edge(torchserve, torchserve, endpoints=at) as running:
            for path, model in (
                ("/predictions/resnet-50", "resnet-50"),
                ("/predict", "resnet-50"),
                ("/v2/models/t5-small/infer", "t5-small"),
                ("/model", "resnet-50"),
                ("/predict/text_summarize?model=t5", "_summarizer"),
            ):
                with pytest.raises(httpx.ReadTimeout):
                    httpx.post(running.url + path, content=b"x", timeout=httpx.Timeout(5, read=0.3))
                datagram = receiver.recv(2000).decode()
                edge_id = torchserve.received[-1].headers["x-edge-id"]
                match = re.search(r"client-left ([0-9a-f]{32}) (\S+) ([\d.]+)$", datagram)
                assert match, datagram
                assert match.groups()[:2] == (edge_id, model)
                assert 0.2 < float(match[3]) < 3
            # A model name with a space or a line feed is not reported.
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(
                    running.url + "/predictions/a%20b%0ac", content=b"x", timeout=httpx.Timeout(5, read=0.3)
                )
            receiver.settimeout(0.7)
            with pytest.raises(TimeoutError):
                receiver.recv(2000)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://{host}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://{host}"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Host": "models.example"}, 200),
        ({"Host": "localhost:1"}, 200),
    ],
)
def test_management_rejects_requests_from_other_sites(torchserve, headers, status):
    at = Endpoints(
        inference=f"http://{torchserve.address}",
        management=f"http://{torchserve.address}",
        metrics=f"http://{torchserve.address}",
    )
    settings = {"endpoints": at, "open_management": True, "server_names": ("models.example",)}
    with edge(torchserve, **settings) as running, http(running) as client:
        headers = {name: value.format(host=running.config.http) for name, value in headers.items()}
        assert client.post("/models?url=a.mar", headers=headers).status_code == status
        assert client.get("/metrics", headers=headers).status_code == status
    assert len(torchserve.received) == (2 if status == 200 else 0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8::a0a:a0a", "2001:db8::a", True),  # a byte of a line feed
    ],
)
def test_client_is_identified_by_its_forwarded_address(torchserve, one, other, same):
    """A load balancer sends the address in X-Forwarded-For."""
    torchserve.answer = lambda request: Answer(seconds=0.7 if request.body == b"slow" else 0)
    settings = {"limits": Limits(client_requests=1), "real_ip_from": ("127.0.0.0/8",)}
    with edge(torchserve, **settings) as running, http(running) as client:

        async def both() -> int:
            async with httpx.AsyncClient(base_url=running.url) as first:
                slow = asyncio.create_task(
                    first.post(PATH, content=b"slow", headers={"X-Forwarded-For": one})
                )
                while not torchserve.received:
                    await asyncio.sleep(0.01)
                second = client.post(PATH, content=b"x", headers={"X-Forwarded-For": other})
                assert (await slow).status_code == 200
                return second.status_code

        assert asyncio.run(both()) == (429 if same else 200)


def test_client_is_identified_by_the_proxy_protocol(torchserve):
    settings = {"real_ip_from": ("127.0.0.1",), "proxy_protocol": True, "limits": Limits(client_requests=1)}
    torchserve.answer = lambda _: Answer(seconds=0.5)
    request = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    with edge(torchserve, **settings) as running:
        connections = [socket.create_connection(address(running.url), 10) for _ in range(3)]
        for number, connection in zip((1, 1, 2), connections, strict=True):
            connection.sendall(b"PROXY TCP4 10.0.0.%d 10.0.0.9 1 2\r\n" % number + request)
        statuses = [connection.recv(1000).split()[1] for connection in connections]
        for connection in connections:
            connection.close()
    assert Counter(statuses[:2]) == {b"200": 1, b"429": 1}
    assert statuses[2] == b"200"


@needs("openssl")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_version_is_supported(torchserve, tmp_path, version):
    files = Tls(tmp_path / "cert.pem", tmp_path / "key.pem")
    line = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -out {} -keyout {}"
    command = line.format(files.certificate, files.key).split()
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.create_default_context(cafile=files.certificate)
    context.check_hostname = False
    context.minimum_version = context.maximum_version = version
    with (
        edge(torchserve, tls=files) as running,
        socket.create_connection(address(running.url), 10) as connection,
        context.wrap_socket(connection) as secure,
    ):
        assert secure.version() == version.name.replace("_", ".")
