"""The response cache: nginx and the gateway in front of a fake TorchServe."""

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import httpx
import pytest

from tests.faults.edge import Answer, FakeServer, Received, address, edge, listens, needs_nginx
from torchserve_models.client import Endpoints
from torchserve_models.gateway.nginx.config import Limits, NginxConfig
from torchserve_models.gateway.response_cache.cached_predictions import MAX_REQUESTS
from torchserve_models.gateway.server import MAX_CONNECTIONS
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.supervision.edge_supervisor import EdgeSupervisor

pytestmark = needs_nginx
PATH = "/predictions/resnet-50"


class Server:
    """A fake TorchServe: the management API describes `default`, and predictions name the version that answered."""

    def __init__(self) -> None:
        self.default = "1.0"
        self.started = {"1.0": "2026-01-01T00:00:00.000Z", "2.0": "2026-01-02T00:00:00.000Z"}
        self.computed: Counter[bytes] = Counter()
        self.release = threading.Event()
        self.release.set()
        self.before_answer: Callable[[], object] = lambda: None
        self.failure: Answer | None = None
        self.headers = {"Cache-Control": "no-cache; no-store, must-revalidate, private", "Pragma": "no-cache"}
        self.requests: list[Received] = []

    def answer(self, request: Received) -> Answer:
        parts = request.target.split("?")[0].split("/")
        if request.method == "GET":
            return self._describe(parts)
        self.requests.append(request)
        self.computed[request.body] += 1
        self.before_answer()
        version = parts[3] if parts[1] == "predictions" and len(parts) > 3 else self.default
        if self.failure is not None:
            return replace(self.failure, release=self.release)
        return Answer(200, f"version {version}".encode(), headers=self.headers, release=self.release)

    def _describe(self, parts: list[str]) -> Answer:
        version = parts[3] if len(parts) > 3 else self.default
        if parts[1] != "models" or len(parts) < 3 or version not in self.started:
            return Answer(404, b"{}")
        worker = {"id": "9000", "startTime": self.started[version], "status": "READY"}
        description = [{"modelName": parts[2], "modelVersion": version, "workers": [worker]}]
        return Answer(200, json.dumps(description).encode())


@contextmanager
def cached(server: Server, **settings: object) -> Iterator[EdgeSupervisor]:
    """Run nginx and the gateway with a cache."""
    with FakeServer(server.answer) as torchserve:
        at = f"http://{torchserve.address}"
        endpoints = Endpoints(inference=at, management=at, health="http://127.0.0.1:9")
        config = NginxConfig(
            http="127.0.0.1:0",
            grpc="127.0.0.1:0",
            gateway="127.0.0.1:0",
            endpoints=endpoints,
            limits=Limits(client_requests=2000, body_bytes=2**30),
        )
        # On a busy machine, the fake management API may need seconds for an answer.
        values = {"cache_bytes": 2**20, "cache_check_timeout_s": 20, **settings}
        with EdgeSupervisor(config, GatewaySettings(**values)) as supervisor:  # type: ignore[arg-type]
            yield supervisor


@pytest.fixture(scope="module")
def module_served() -> Server:
    return Server()


@pytest.fixture(scope="module")
def running(module_served) -> Iterator[EdgeSupervisor]:
    with cached(module_served) as supervisor:
        yield supervisor


@pytest.fixture
def served(module_served) -> Iterator[Server]:
    """Return the fake TorchServe without the requests of earlier tests."""
    module_served.__init__()
    yield module_served
    module_served.release.set()


@pytest.fixture
def client(running, served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=30) as connection:
        yield connection


@pytest.fixture
def image() -> bytes:
    """Return a body that no earlier request had."""
    return os.urandom(16) + bytes(100_000)


def result(response: httpx.Response) -> tuple[int, str, str]:
    return response.status_code, response.headers.get("x-cache", ""), response.text


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def requests_in_progress(running: EdgeSupervisor) -> float:
    """Return the number of requests in progress in the gateway, beside this one."""
    text = httpx.get(f"http://{running.config.gateway}/gateway/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("gateway_requests_in_progress ")]
    return float(line.split()[1]) - 1


def test_answer_is_computed_once_and_keeps_the_ids_of_each_request(client, served, image):
    first = client.post(PATH, content=image, headers={"X-Request-Id": "one"})
    assert result(first) == (200, "MISS", "version 1.0")
    second = client.post(PATH, content=image, headers={"X-Request-Id": "two"})
    assert result(second) == (200, "HIT", "version 1.0")
    assert [r.headers.get_list("x-request-id") for r in (first, second)] == [["one"], ["two"]]
    assert second.headers["age"] == "0"
    for response in (first, second):
        assert not {"cache-control", "pragma", "expires"} & set(response.headers)
    assert served.computed == {image: 1}
    assert "x-gateway-key" not in served.requests[0].headers
    assert served.requests[0].headers["x-request-id"] == "one"


def test_cached_answer_takes_little_more_time_than_a_probe(client, image):
    """A cached answer needs one question to the management API."""
    seconds: dict[str, list[float]] = {"/livez": [], PATH: []}
    for _ in range(100):
        for path, method in (("/livez", "GET"), (PATH, "POST")):
            begin = time.perf_counter()
            response = client.request(method, path, content=image[:1000] if method == "POST" else None)
            seconds[path].append(time.perf_counter() - begin)
    assert response.headers["x-cache"] == "HIT"
    assert min(seconds[PATH]) < 2 * min(seconds["/livez"])


def test_next_answer_after_set_default_is_the_new_version(client, served, image):
    for version in ("1.0", "2.0", "1.0"):
        served.default = version
        assert client.post(PATH, content=image).text == f"version {version}"
    assert served.computed == {image: 2}
    assert client.post(PATH, content=image).headers["x-cache"] == "HIT"
    assert client.post(f"{PATH}/2.0", content=image).text == "version 2.0"


def test_answer_is_of_its_version_if_the_default_changes_before_it_is_computed(client, served, image):
    served.before_answer = lambda: setattr(served, "default", "2.0")
    assert result(client.post(PATH, content=image)) == (200, "MISS", "version 1.0")
    assert result(client.post(PATH, content=image)) == (200, "MISS", "version 2.0")
    served.default = "1.0"
    assert result(client.post(PATH, content=image)) == (200, "HIT", "version 1.0")


def test_version_that_is_registered_again_answers_anew(client, served, image):
    client.post(PATH, content=image)
    served.started["1.0"] = "2026-01-03T00:00:00.000Z"
    assert result(client.post(PATH, content=image))[1] == "MISS"


def test_simultaneous_requests_compute_once(client, running, served, image):
    served.release.clear()
    with ThreadPoolExecutor(100) as pool:
        answers = [pool.submit(lambda: result(client.post(PATH, content=image))) for _ in range(100)]
        wait_until(lambda: requests_in_progress(running) == 100)
        served.release.set()
    expected = {(200, "MISS", "version 1.0"): 1, (200, "HIT", "version 1.0"): 99}
    assert Counter(answer.result() for answer in answers) == expected
    assert served.computed == {image: 1}


def test_error_goes_to_all_waiters_and_is_not_stored(client, running, served, image):
    served.failure = Answer(400, b'{"code": 400}')
    served.release.clear()
    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(client.post, PATH, content=image) for _ in range(5)]
        wait_until(lambda: requests_in_progress(running) == 5 and served.computed)
        time.sleep(0.2)  # a request may have to read its body before it joins
        served.release.set()
    received = [answer.result() for answer in answers]
    assert {(answer.status_code, answer.text) for answer in received} == {(400, '{"code": 400}')}
    assert served.computed == {image: 1}
    served.failure = None
    assert result(client.post(PATH, content=image)) == (200, "MISS", "version 1.0")


def test_waiters_get_the_answer_if_the_first_client_disconnects(client, running, served, image):
    served.release.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, PATH, content=image, timeout=1.0)
        wait_until(lambda: served.computed)
        second = pool.submit(client.post, PATH, content=image)
        assert isinstance(first.exception(30), httpx.ReadTimeout)
        wait_until(lambda: requests_in_progress(running) == 1)
        served.release.set()
        assert second.result(30).text == "version 1.0"


def test_deadline_of_the_first_request_does_not_end_the_others(client, served, image):
    served.release.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, PATH, content=image, headers={"X-Request-Timeout": "2"})
        wait_until(lambda: served.computed)
        second = pool.submit(client.post, PATH, content=image)
        assert (first.result().status_code, first.result().json()["type"]) == (504, "DeadlineExceeded")
        assert "x-cache" not in first.result().headers
        served.release.set()
        assert result(second.result()) == (200, "HIT", "version 1.0")
    assert served.computed == {image: 1}


def test_error_of_the_gateway_has_no_cache_header(client, served, image):
    response = client.post(PATH, content=image, headers={"X-Request-Timeout": "soon"})
    assert (response.status_code, response.json()["type"]) == (400, "InvalidRequest")
    assert "x-cache" not in response.headers
    assert served.computed == {}


def test_deadline_that_passes_in_the_gateway_is_not_computed_again(client, running, served, image):
    with ThreadPoolExecutor(1) as pool:
        os.kill(running.gateway.pid, signal.SIGSTOP)
        try:
            answer = pool.submit(client.post, PATH, content=image, headers={"X-Request-Timeout": "1"})
            assert (answer.result(30).status_code, answer.result().json()["type"]) == (
                504,
                "DeadlineExceeded",
            )
        finally:
            os.kill(running.gateway.pid, signal.SIGCONT)
    assert served.computed == {}


@pytest.mark.full
def test_other_routes_work_while_many_misses_are_in_progress(image):
    """More misses than the gateway has connections."""
    served, count = Server(), MAX_CONNECTIONS + 100
    served.release.clear()
    with cached(served) as gateway, ExitStack() as connections, httpx.Client(base_url=gateway.url) as client:
        try:
            for number in range(count):
                connection = connections.enter_context(socket.create_connection(address(gateway.url), 10))
                body = f"{number}".encode() + image[:100]
                head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
            wait_until(lambda: len(served.requests) == count)
            assert 100 <= requests_in_progress(gateway) <= MAX_REQUESTS
            assert client.get("/livez").status_code == 200
            assert client.get("/readyz").status_code == 503  # there is no supervisor
            # The gateway reads and parses the pixels.
            response = client.post("/model", content=b"{", headers={"Content-Type": "application/json"})
            assert response.json()["type"] == "InvalidRequest"
        finally:
            served.release.set()


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"Cache-Control": "no-store"}, b"image"),
        ({"Content-Encoding": "gzip"}, b"image"),
        ({}, bytes(5_000_000)),
    ],
    ids=["no-store", "compressed", "large"],
)
def test_request_bypasses_the_cache(client, served, headers, content):
    for _ in range(2):
        response = client.post(PATH, content=content, headers=headers)
        assert result(response) == (200, "BYPASS", "version 1.0")
    assert sum(served.computed.values()) == 2
    assert {request.target for request in served.requests} == {PATH}
    assert all(request.body == content for request in served.requests)


def test_no_cache_computes_anew_and_stores_the_answer(client, served, image):
    client.post(PATH, content=image)
    served.headers["X-Answer"] = "second"
    assert result(client.post(PATH, content=image, headers={"Cache-Control": "no-cache"}))[1] == "MISS"
    response = client.post(PATH, content=image)
    assert (response.headers["x-cache"], response.headers["x-answer"]) == ("HIT", "second")
    assert served.computed == {image: 2}


def test_parameters_separate_answers(client, served, image):
    for expected in ("MISS", "HIT"):
        assert client.post(f"{PATH}?a=1&b=2", content=image).headers["x-cache"] == expected
    assert client.post(f"{PATH}?b=1&a=2", content=image).headers["x-cache"] == "MISS"
    client.post("/predict", files={"image": ("a.jpg", image)})
    assert client.post("/predict", files={"image": ("a.jpg", image)}).headers["x-cache"] == "HIT"
    assert client.post("/predict", files={"image": ("b.jpg", image)}).headers["x-cache"] == "MISS"


def test_routes_separate_answers(client, served, image):
    paths = {
        PATH: f"{PATH}/1.0",
        "/v2/models/resnet-50/infer": "/v2/models/resnet-50/infer",
        "/v1/models/resnet-50:predict": "/v1/models/resnet-50:predict",
        "/v2/models/resnet-50/versions/1.0/infer": f"{PATH}/1.0",
    }
    for path in paths:
        assert client.post(path, content=image).headers["x-cache"] == "MISS"
    assert [request.target for request in served.requests] == list(paths.values())
    for path in paths:
        assert client.post(path, content=image).headers["x-cache"] == "HIT"


def exchange(running: EdgeSupervisor, target: bytes, body: bytes) -> bytes:
    """Send a prediction whose target is not changed by a client library, and return the answer."""
    with socket.create_connection(address(running.url), 10) as connection:
        head = b"POST %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % (target, len(body)) + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("target", "received"),
    [
        (b"/predictions/a%0d%0aX-Injected:%201", "/predictions/a%0D%0AX-Injected:%201/1.0"),
        (b"/predictions/a/1.0%0d%0aX-Injected:%201", "/predictions/a/1.0%0D%0AX-Injected:%201"),
        (b"/predictions/a#b", "/predictions/a/1.0"),
        (b"/predictions/a?x=1#b", "/a/1.0/predict?x=1"),
        (b"/predictions/caf\xc3\xa9", "/predictions/caf%C3%A9/1.0"),
        (b"/predictions/a?x=\xff", b"/models/a/invoke?x=\xff".decode("latin-1")),
        (b"/predictions/../predictions/a", "/predictions/a/1.0"),
        (b'/predictions/a?x=%zz"|', '/a/1.0/predict?x=%zz"|'),
    ],
)
def test_unusual_targets_reach_torchserve_as_without_the_cache(running, served, image, target, received):
    for _ in range(2):
        answer = exchange(running, target, image)
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    assert {request.target for request in served.requests} == {received}
    assert not any("x-injected" in request.headers for request in served.requests)


def test_predictions_continue_without_the_gateway(image):
    server = Server()
    with cached(server) as running, httpx.Client(base_url=running.url, timeout=30) as client:
        client.post(PATH, content=image)
        running.gateway.send(signal.SIGKILL)
        running.gateway.listener.close()
        wait_until(lambda: not listens(running.config.gateway))
        assert result(client.post(PATH, content=image)) == (200, "BYPASS", "version 1.0")
        assert [request.target for request in server.requests] == [f"{PATH}/1.0", PATH]


def test_headers_of_handlers_and_clients_are_unchanged_without_the_cache():
    answer = Answer(headers={"X-Cache": "HIT", "Age": "5", "Cache-Control": "no-store"})
    with FakeServer(lambda _: answer) as torchserve, edge(torchserve, cors_origins=("*",)) as nginx:
        headers = {"X-Gateway-Key": "a", "X-Cache-Route": "b", "Origin": "http://a"}
        response = httpx.post(nginx.url + PATH, content=b"image", headers=headers)
    assert {name: response.headers[name] for name in answer.headers} == answer.headers
    assert "X-Cache" not in response.headers["access-control-expose-headers"]
    received = torchserve.received[0].headers
    assert (received["x-gateway-key"], received["x-cache-route"]) == ("a", "b")
