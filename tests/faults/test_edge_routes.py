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

from tests.faults.edge import Answer, Edge, FakeServer, Received, address, edge, needs_nginx
from torchserve_models.gateway.nginx import Limits
from torchserve_models.gateway.unavailable import WORKER_DIED

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
        ("/model", 48),
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
    assert response.headers["x-request-id"]
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


@pytest.mark.parametrize(
    "path", [PATH, "/predict", "/v2/models/t5-small/infer", "/v1/models/t5-small:predict"]
)
@pytest.mark.parametrize("others", [0, 1])
def test_no_request_waits_longer_than_its_deadline(torchserve, gateway, path, others):
    """Such as one that TorchServe has lost with a worker. With several upstreams, the next one is not tried then."""
    torchserve.answer = lambda _: Answer(seconds=20)
    several = ((torchserve.address, "127.0.0.1:1"),) * others
    with edge(torchserve, gateway, others=several) as running, http(running) as client:
        response = client.post(path, content=b"x", headers={"X-Request-Timeout": "0.6"})
    assert (response.status_code, response.json()["type"]) == (504, "DeadlineExceeded")
    assert "X-Request-Timeout" in response.json()["message"]
    assert len(torchserve.received) == 1


def test_what_is_answered_within_its_deadline_passes(torchserve, gateway):
    torchserve.answer = lambda _: Answer(seconds=1.2, body=b"good")
    with edge(torchserve, gateway) as running, http(running) as client:
        for timeout in ("1.5", "30.25", "1000000", ""):
            response = client.post(PATH, content=b"x", headers={"X-Request-Timeout": timeout})
            assert (response.status_code, response.content) == (200, b"good")
            assert not {"x-retried", "retry-after", "allow"} & response.headers.keys()


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


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /livez HTTP/1.0\r\n",
        b"GET /livez HTTP/1.1\r\nConnection: close\r\n",
        b"POST /predict HTTP/1.0\r\nContent-Length: 1\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nConnection: close\r\n",
    ],
)
def test_a_connection_is_closed_where_the_client_asks_for_it(torchserve, gateway, request_head):
    """Case 10: TorchServe's own ports keep it open, and a client that reads to the end would wait for ever."""
    body = b"x" if request_head.startswith(b"POST") else b""
    with (
        edge(torchserve, gateway) as running,
        socket.create_connection(address(running.url), 10) as connection,
    ):
        connection.sendall(request_head + b"Host: x\r\n\r\n" + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
