"""nginx's routes, and its handling of TorchServe's failures, in front of fake servers."""

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
from torchserve_models.gateway.nginx.config import Limits
from torchserve_models.gateway.upstream.unavailable_diagnosis import WORKER_DIED

pytestmark = needs_nginx
PATH = "/predictions/resnet-50"
NO_WORKER = Answer(503, b"no worker")


@contextmanager
def http(running: Edge, **options) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=30, **options) as client:
        yield client


def gateway_answers(request: Received) -> Answer:
    """Respond to /refusals with the reason of a 503, and to any other route with its path."""
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


def test_start_time_and_ids_are_added_to_the_headers(torchserve):
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


def test_start_time_is_the_end_of_the_header(torchserve):
    with edge(torchserve) as running, socket.create_connection(address(running.url)) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
        begin = time.time()
        time.sleep(1)
        connection.sendall(b"b")
        assert b" 200 " in connection.recv(1000)
    assert float(torchserve.received[0].headers["x-request-start"]) < begin + 0.7


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_prediction_routes_allow_post_only(torchserve, method):
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
def test_route_has_its_body_limit(torchserve, gateway, path, limit):
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
def test_path_variants_do_not_reach_internal_routes(torchserve, gateway, target):
    with edge(torchserve, gateway) as running:
        answer = raw(running, target)
    assert re.match(rb"HTTP/1.1 (200|404|400) ", answer)
    assert not any("refusals" in request.target for request in gateway.received)
    assert torchserve.received == []


def test_request_whose_worker_died_is_resent(torchserve, gateway):
    """The second request has the same headers, which the handler needs."""
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


def test_request_that_kills_its_worker_is_sent_at_most_twice(torchserve, gateway):
    torchserve.answer = lambda _: Answer(500, WORKER_DIED)
    with edge(torchserve, gateway) as running, http(running) as client:
        response = client.post(PATH, content=b"x")
    assert (response.status_code, response.json()["type"]) == (503, "WorkerDied")
    assert response.headers["x-retried"] == "1"
    assert response.headers["x-request-id"]
    assert response.headers["retry-after"] == "1"
    assert len(torchserve.received) == 2


def test_retry_rate_is_limited(torchserve, gateway):
    torchserve.answer = lambda request: Answer(
        500, WORKER_DIED if request.body == b"kill" else b'{"type": "Mine"}'
    )
    limits = Limits(resends_per_second=1, resend_burst=5)
    with edge(torchserve, gateway, limits=limits) as running, http(running) as client:
        died = [client.post(PATH, content=b"kill") for _ in range(40)]
        failed = client.post(PATH, content=b"fail")
    assert {
        (response.status_code, response.json()["type"], response.headers["content-type"]) for response in died
    } == {(503, "WorkerDied", "application/json")}
    assert 40 + 5 <= len(torchserve.received) - 1 <= 40 + 20
    assert (failed.status_code, failed.json()["type"]) == (500, "InternalError")


def test_error_500_of_a_handler_is_passed_on(torchserve, gateway):
    torchserve.answer = lambda _: Answer(500, b'{"type": "Mine"}')
    with edge(torchserve, gateway) as running, http(running) as client:
        assert client.post(PATH, content=b"x").json() == {"type": "Mine"}


def test_full_queue_is_429_with_the_gateway_and_503_without(torchserve, gateway):
    torchserve.answer = lambda _: NO_WORKER
    with edge(torchserve, gateway) as running, http(running) as client:
        assert client.post(PATH, content=b"x").status_code == 429
    with edge(torchserve) as running, http(running) as client:
        response = client.post(PATH, content=b"x")
    assert (response.status_code, response.json()["type"]) == (503, "Unavailable")
    assert response.headers["retry-after"] == "1"


def test_deadline_of_the_handler_differs_from_timeout_of_the_proxy(torchserve):
    torchserve.answer = lambda request: Answer(504, b"{}") if request.body == b"late" else Answer(seconds=3)
    with edge(torchserve, upstream_timeout_s=1) as running, http(running) as client:
        assert client.post(PATH, content=b"late").json()["type"] == "DeadlineExceeded"
        assert client.post(PATH, content=b"slow").json()["type"] == "Timeout"


@pytest.mark.parametrize(
    "path", [PATH, "/predict", "/v2/models/t5-small/infer", "/v1/models/t5-small:predict"]
)
@pytest.mark.parametrize("others", [0, 1])
def test_no_request_waits_longer_than_its_deadline(torchserve, gateway, path, others):
    """TorchServe loses requests together with a worker. After the deadline, no further upstream is tried."""
    torchserve.answer = lambda _: Answer(seconds=20)
    several = (torchserve.address,) * others
    with edge(torchserve, gateway, others=several) as running, http(running) as client:
        response = client.post(path, content=b"x", headers={"X-Request-Timeout": "0.6"})
    assert (response.status_code, response.json()["type"]) == (504, "DeadlineExceeded")
    assert "X-Request-Timeout" in response.json()["message"]
    assert len(torchserve.received) == 1


def test_answer_within_the_deadline_is_passed_on(torchserve, gateway):
    torchserve.answer = lambda _: Answer(seconds=1.2, body=b"good")
    with edge(torchserve, gateway) as running, http(running) as client:
        for timeout in ("1.5", "30.25", "1000000", ""):
            response = client.post(PATH, content=b"x", headers={"X-Request-Timeout": timeout})
            assert (response.status_code, response.content) == (200, b"good")
            assert not {"x-retried", "retry-after", "allow"} & response.headers.keys()


@pytest.mark.parametrize("failure", [NO_WORKER, Answer(429, b"full")], ids=["no worker", "full"])
def test_second_upstream_answers_if_the_first_fails(torchserve, gateway, failure):
    """An upstream that fails quickly has the fewest connections, so nginx would prefer it."""
    torchserve.answer = lambda _: failure
    with (
        FakeServer(lambda _: Answer(seconds=0.05, body=b"good")) as good,
        edge(torchserve, gateway, others=(good.address,)) as running,
    ):
        statuses = asyncio.run(many(running.url, 300, 20))
    assert statuses == {200: 300}
    # nginx skips the upstream for a while after every 20 failures.
    assert 20 <= len(torchserve.received) < 300


def test_two_full_upstreams_are_429(torchserve, gateway):
    torchserve.answer = lambda _: NO_WORKER
    with edge(torchserve, gateway, others=(torchserve.address,)) as running:
        statuses = asyncio.run(many(running.url, 200, 20))
    assert statuses == {429: 200}


def test_unreachable_upstream_is_replaced_by_the_other(torchserve, gateway):
    with edge(torchserve, gateway, others=("127.0.0.1:1",)) as running:
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


def test_internal_listener_serves_health_and_metrics(torchserve, gateway):
    with edge(torchserve, gateway) as running:
        base = f"http://{running.config.internal}"
        assert httpx.get(f"{base}/livez").text == "/livez"
        assert httpx.get(f"{base}/edge/metrics").text == "/gateway/metrics"
        assert 'nginx_connections{state="active"}' in httpx.get(f"{base}/edge/nginx").text
        assert httpx.get(f"{running.url}/edge/metrics").status_code == 403


def test_removed_body_folder_is_restored(torchserve):
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
def test_connection_is_closed_if_the_client_requests_it(torchserve, gateway, request_head):
    """TorchServe keeps such connections open, so a client that reads until the end would wait forever."""
    body = b"x" if request_head.startswith(b"POST") else b""
    with (
        edge(torchserve, gateway) as running,
        socket.create_connection(address(running.url), 10) as connection,
    ):
        connection.sendall(request_head + b"Host: x\r\n\r\n" + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
