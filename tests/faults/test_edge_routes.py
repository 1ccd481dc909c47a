"""What nginx lets through and what it does with TorchServe's failures, in front of fake servers."""

import asyncio
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from client import Endpoints
from gateway.nginx import Limits
from gateway.refusals import WORKER_DIED
from tests.faults.edge import Answer, Edge, FakeServer, Received, address, edge, needs_nginx

pytestmark = needs_nginx
PATH = "/predictions/resnet-50"
NO_WORKER = Answer(503, b"no worker")


@contextmanager
def http(running: Edge, **options) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=30, **options) as client:
        yield client


def gateway_answers(request: Received) -> Answer:
    """Its explanation of TorchServe's 503; else the route that it got."""
    if request.target.startswith("/refusals/"):
        return Answer(429, b"{}", headers={"Retry-After": "1"})
    return Answer(body=request.target.encode())


@pytest.fixture
def torchserve() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def gateway() -> Iterator[FakeServer]:
    with FakeServer(gateway_answers) as server:
        yield server


def test_headers_are_stamped(torchserve):
    with edge(torchserve) as running, http(running) as client:
        before = time.time()
        sent = {
            "X-Request-Start": "1",
            "X-Edge-Id": "forged",
            "X-Request-Id": "mine",
            "X-Request-Timeout": "7.5",
        }
        for path in (PATH, "/predict", "/v2/models/t5-small/infer"):
            assert client.post(path, headers=sent, content=b"x").status_code == 200
    for request in torchserve.received:
        assert before - 1 < float(request.headers["x-request-start"]) < time.time() + 1
        assert re.fullmatch("[0-9a-f]{32}", request.headers["x-edge-id"])
        assert request.headers["x-request-id"] == "mine"
        assert request.headers["x-request-timeout"] == "7.5"


def test_the_arrival_is_the_end_of_the_header(torchserve):
    with edge(torchserve) as running, socket.create_connection(address(running.url)) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
        begin = time.time()
        time.sleep(1)
        connection.sendall(b"b")
        assert b" 200 " in connection.recv(1000)
    assert float(torchserve.received[0].headers["x-request-start"]) < begin + 0.7


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_only_post_predicts(torchserve, method):
    with edge(torchserve) as running, http(running) as client:
        for path in (
            PATH,
            "/predictions/t5-small/1.0",
            "/predict",
            "/v2/models/a/infer",
            "/v2/models/a/versions/1/infer",
        ):
            response = client.request(method, path)
            assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert torchserve.received == []


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/predictions/t5-small", 4),
        ("/predictions/bart-large-cnn/1.0", 4),
        ("/predict/text_summarize", 4),
        (PATH, 16),
        ("/model", 16),
        ("/v2/models/t5-small/infer", 16),
        ("/v2/health/ready", 0),
        ("/readyz/t5-small", 0),
    ],
)
def test_each_route_has_its_body_limit(torchserve, gateway, path, limit):
    with edge(torchserve, gateway) as running, http(running) as client:
        if limit:
            assert client.post(path, content=bytes(limit * 2**20)).status_code == 200
        response = client.post(path, content=bytes(limit * 2**20 + 2000))
        assert response.status_code == 413
        assert response.json()["type"] == "TooLarge"
        assert (f"larger than {limit} MiB" if limit else "this route accepts") in response.json()["message"]
        pieces = (bytes(2**16) for _ in range(limit * 16 + 1))
        assert client.post(path, content=pieces).status_code == 413


def raw(running: Edge, target: bytes, method: bytes = b"GET") -> bytes:
    with socket.create_connection(address(running.url), 10) as connection:
        connection.sendall(method + b" " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "target",
    [
        b"/refusals/a/",
        b"//refusals/a/",
        b"/v2/../refusals/a/",
        b"/refusals/../v2/",
        b"/refusals/..%2fv2/x",
        b"/v2/..%2frefusals/a/",
        b"/v2/%2e%2e/refusals/a/",
        b"/docs/%2e%2e%2frefusals/a/1",
        b"/refusals/a/%2e%2e/%2e%2e/docs",
        b"/./refusals/a/../../v2/x",
        b"http://x/refusals/a/",
    ],
)
def test_no_spelling_of_a_path_reaches_an_inner_route(torchserve, gateway, target):
    with edge(torchserve, gateway) as running:
        answer = raw(running, target)
    assert re.match(rb"HTTP/1.1 (200|404|400) ", answer)
    assert not any("refusals" in request.target for request in gateway.received)
    assert torchserve.received == []


def test_a_worker_that_died_is_not_the_clients_matter(torchserve, gateway):
    """Sent once more, with everything that the handler is to know of it."""
    attempts: Counter[str] = Counter()

    def answer(request: Received) -> Answer:
        attempts[request.headers["x-request-id"]] += 1
        first = attempts[request.headers["x-request-id"]] == 1
        return Answer(507 if len(attempts) % 2 else 500, WORKER_DIED) if first else Answer(body=request.body)

    torchserve.answer = answer
    with edge(torchserve, gateway) as running, http(running) as client:
        for number in range(10):
            path = PATH if number % 2 else "/v2/models/t5-small/infer"
            response = client.post(path, content=b"%d" % number, headers={"X-Request-Id": f"n{number}"})
            assert (response.status_code, response.content) == (200, b"%d" % number)
            assert response.headers["x-retried"] == "1"
    assert set(attempts.values()) == {2}
    for first, second in zip(torchserve.received[::2], torchserve.received[1::2], strict=True):
        assert first == second


def test_a_request_that_kills_is_sent_twice_and_no_more(torchserve, gateway):
    torchserve.answer = lambda _: Answer(500, WORKER_DIED)
    with edge(torchserve, gateway) as running, http(running) as client:
        response = client.post(PATH, content=b"x")
    assert (response.status_code, response.json()["type"]) == (503, "WorkerDied")
    assert response.headers["x-retried"] == "1"
    assert response.headers["retry-after"] == "1"
    assert len(torchserve.received) == 2


def test_resends_have_a_budget(torchserve, gateway):
    torchserve.answer = lambda request: Answer(
        500, WORKER_DIED if request.body == b"kill" else b'{"type": "Mine"}'
    )
    limits = Limits(resends_per_second=1, resend_burst=5)
    with edge(torchserve, gateway, limits=limits) as running, http(running) as client:
        died = [client.post(PATH, content=b"kill") for _ in range(40)]
        failed = client.post(PATH, content=b"fail")
    assert {(each.status_code, each.json()["type"], each.headers["content-type"]) for each in died} == {
        (503, "WorkerDied", "application/json")
    }
    assert 40 + 5 <= len(torchserve.received) - 1 <= 40 + 20
    assert (failed.status_code, failed.json()["type"]) == (500, "InternalError")


def test_a_handlers_own_500_passes(torchserve, gateway):
    torchserve.answer = lambda _: Answer(500, b'{"type": "Mine"}')
    with edge(torchserve, gateway) as running, http(running) as client:
        assert client.post(PATH, content=b"x").json() == {"type": "Mine"}


def test_a_full_queue_is_429_and_without_the_gateway_503(torchserve, gateway):
    torchserve.answer = lambda _: NO_WORKER
    with edge(torchserve, gateway) as running, http(running) as client:
        assert client.post(PATH, content=b"x").status_code == 429
    with edge(torchserve) as running, http(running) as client:
        response = client.post(PATH, content=b"x")
    assert (response.status_code, response.json()["type"]) == (503, "Unavailable")
    assert response.headers["retry-after"] == "1"


def test_the_handlers_deadline_is_told_apart_from_the_proxys(torchserve):
    torchserve.answer = lambda request: Answer(504, b"{}") if request.body == b"late" else Answer(seconds=3)
    with edge(torchserve, upstream_timeout=1) as running, http(running) as client:
        assert client.post(PATH, content=b"late").json()["type"] == "DeadlineExceeded"
        assert client.post(PATH, content=b"slow").json()["type"] == "Timeout"


@pytest.mark.parametrize("failure", [NO_WORKER, Answer(429, b"full")], ids=["no worker", "full"])
def test_the_next_of_two_upstreams_answers(torchserve, gateway, failure):
    """The one that fails fast has the fewest connections, and so attracts requests."""
    torchserve.answer = lambda _: failure
    with (
        FakeServer(lambda _: Answer(seconds=0.05, body=b"good")) as good,
        edge(torchserve, gateway, others=((good.address, "127.0.0.1:1"),)) as running,
    ):
        statuses = asyncio.run(many(running.url, 300, 20))
    assert statuses == {200: 300}
    assert 20 <= len(torchserve.received) < 300  # left out for a while after each 20 failures


def test_two_upstreams_that_are_full_refuse_with_429(torchserve, gateway):
    torchserve.answer = lambda _: NO_WORKER
    with edge(torchserve, gateway, others=((torchserve.address, "127.0.0.1:1"),)) as running:
        statuses = asyncio.run(many(running.url, 200, 20))
    assert statuses == {429: 200}


def test_one_of_two_upstreams_that_is_gone(torchserve, gateway):
    with edge(torchserve, gateway, others=(("127.0.0.1:1", "127.0.0.1:1"),)) as running:
        assert asyncio.run(many(running.url, 100, 10)) == {200: 100}


async def many(url: str, count: int, at_once: int) -> Counter[int]:
    limit = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:

        async def one() -> int:
            async with limit:
                response = await client.post(PATH, content=b"x")
                assert response.status_code == 200 or response.headers["retry-after"] == "1"
                return response.status_code

        return Counter(await asyncio.gather(*(one() for _ in range(count))))


def test_a_client_that_left_is_reported(torchserve):
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
                found = re.search(r"client-left ([0-9a-f]{32}) (\S+) ([\d.]+)$", datagram)
                assert found, datagram
                assert found.groups()[:2] == (edge_id, model)
                assert 0.2 < float(found[3]) < 3
            # A name that could be taken for something else is not reported.
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
def test_management_is_for_this_site_alone(torchserve, headers, status):
    at = Endpoints(
        inference=f"http://{torchserve.address}",
        management=f"http://{torchserve.address}",
        metrics=f"http://{torchserve.address}",
    )
    settings = {"endpoints": at, "open_management": True, "server_names": ("models.example",)}
    with edge(torchserve, **settings) as running, http(running) as client:
        headers = {name: value.format(host=running.front.http) for name, value in headers.items()}
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
def test_who_counts_as_one_client(torchserve, one, other, same):
    """Behind a balancer, which says who it is."""
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


def test_the_proxy_protocol(torchserve):
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


def test_the_internal_listener(torchserve, gateway):
    with edge(torchserve, gateway) as running:
        base = f"http://{running.front.internal}"
        assert httpx.get(f"{base}/livez").text == "/livez"
        assert httpx.get(f"{base}/edge/metrics").text == "/gateway/metrics"
        assert 'nginx_connections{state="active"}' in httpx.get(f"{base}/edge/nginx").text
        assert httpx.get(f"{running.url}/edge/metrics").status_code == 403


def test_a_body_folder_that_was_cleaned_away_comes_back(torchserve):
    with edge(torchserve) as running, http(running) as client:
        running.folder.restore()
        (running.folder.path / "body").rmdir()
        assert client.post(PATH, content=bytes(100_000)).status_code == 500
        running.folder.restore()
        assert client.post(PATH, content=bytes(100_000)).text == "100000"
