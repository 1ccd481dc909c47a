"""Requests whose connection to a server breaks are resent once, without an error for the client."""

import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import httpx
import psutil
import pytest

from tests.faults.edge import Answer, FakeServer, edge
from tests.faults.test_restart import frontend
from tests.faults.test_workers import phase, until
from tests.faults.toys import toy
from tests.server.fronted import in_front_of, needs_nginx
from torchserve_models import serving
from torchserve_models.client._stubs import inference_pb2, inference_pb2_grpc

pytestmark = [needs_nginx, pytest.mark.usefixtures("fast_toys")]
PATH = "/predictions/resnet-50"


class Breaking:
    """An answer function of FakeServer that closes the first `breaks` connections, then answers."""

    def __init__(self, breaks: int) -> None:
        self.left = breaks

    def __call__(self, request):
        self.left -= 1
        return (
            Answer(0) if self.left >= 0 else Answer(body=b"%d bytes" % int(request.headers["content-length"]))
        )


@pytest.mark.parametrize("size", [3, 300_000])
def test_lost_request_is_resent_if_the_gateway_allows_it(size):
    with (
        FakeServer(Breaking(1)) as torchserve,
        FakeServer(lambda _: Answer(204, b"")) as gateway,
        edge(torchserve, gateway) as running,
    ):
        answer = httpx.post(f"{running.url}{PATH}/2.0", content=b"x" * size, headers={"X-Request-Id": "mine"})
    assert (answer.status_code, answer.text) == (200, f"{size} bytes")
    assert answer.headers["X-Retried"] == "1"
    assert [request.target for request in gateway.received] == ["/wait/resnet-50/2.0"]
    assert len({request.body for request in torchserve.received}) == 1
    first, second = (request.headers for request in torchserve.received)
    assert first == second
    assert second["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("breaks", "expected_requests", "allowed"), [(1, 1, 403), (1, 1, 504), (1, 1, 400), (2, 1, 204)]
)
def test_lost_request_that_may_not_be_resent_is_503(breaks, expected_requests, allowed):
    with (
        FakeServer(Breaking(breaks)) as torchserve,
        FakeServer(lambda _: Answer(allowed, b"")) as gateway,
        edge(torchserve, gateway) as running,
    ):
        answer = httpx.post(f"{running.url}{PATH}", content=b"abc")
    assert (answer.status_code, answer.json()["type"]) == (503, "Unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert len(gateway.received) == expected_requests
    assert len(torchserve.received) == breaks


def test_lost_request_without_a_gateway_is_503_at_once():
    with FakeServer(Breaking(1)) as torchserve, edge(torchserve) as running:
        answer = httpx.post(f"{running.url}{PATH}", content=b"abc")
    assert (answer.status_code, answer.json()["type"]) == (503, "Unavailable")


@pytest.fixture(scope="module")
def fronted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lost")
    names = [toy(folder, "first"), toy(folder, "second")]
    with (
        serving.start(names, pack=False, run_dir=folder / "run", store=folder) as server,
        in_front_of(server.endpoints) as front,
    ):
        yield server, front


def send_until(stop, send):
    """Send requests with eight clients until `stop` is set; return the count of each result."""
    results = Counter()

    def run():
        while not stop.is_set():
            try:
                results[send()] += 1
            except httpx.HTTPError as error:
                results[type(error).__name__] += 1
            time.sleep(0.02)

    with ThreadPoolExecutor(8) as pool:
        for task in [pool.submit(run) for _ in range(8)]:
            task.result()  # raises the exception of the thread
    return results


def under_load(send, harm):
    stop, results = threading.Event(), {}
    thread = threading.Thread(target=lambda: results.update(send_until(stop, send)))
    thread.start()
    time.sleep(1)
    try:
        harm()
    finally:
        stop.set()
        thread.join(60)
    return results


@contextmanager
def calls_of(front):
    """Return a function that sends a prediction over gRPC and returns 200 or the status of its error."""
    message = inference_pb2.PredictionsRequest(model_name="first", input={"data": b"x" * 1000})
    with grpc.insecure_channel(front.config.grpc) as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)

        def call():
            try:
                return 200 if stub.Predictions(message, timeout=60).prediction else "empty"
            except grpc.RpcError as error:
                return error.code()

        yield call


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_killed_front_end_loses_no_request(fronted, protocol):
    server, front = fronted
    before = frontend(server)

    def harm():
        os.kill(before, signal.SIGKILL)
        until(lambda: frontend(server) != before and phase(server) == "ready", 120)
        time.sleep(1)

    def send():
        url = f"{front.url}/predictions/first"
        return httpx.post(url, content=b"sleep 0.02", timeout=60).status_code

    with calls_of(front) as call:
        results = under_load(send if protocol == "rest" else call, harm)
    assert results.keys() == {200}, results


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_killed_gateway_loses_no_request(fronted, protocol):
    """nginx repeats a request unless the gateway has sent the header of its answer, a moment before the body."""
    _, front = fronted
    before = front.gateway.pid

    def harm():
        for number in (signal.SIGKILL, signal.SIGSTOP):
            pid = front.gateway.pid
            os.kill(pid, number)
            end = time.monotonic() + 30
            while front.gateway.pid == pid or not front.gateway.is_ready:
                assert time.monotonic() < end
                front.supervise()
                time.sleep(0.1)
        time.sleep(1)

    def get():
        return httpx.get(f"{front.url}/v2/models/first", timeout=60).status_code

    with calls_of(front) as call:
        results = under_load(get if protocol == "rest" else call, harm)
    # At most one for each signal.
    truncated = results.pop("RemoteProtocolError", 0) + results.pop(grpc.StatusCode.INTERNAL, 0)
    assert truncated <= 2
    assert results.keys() == {200}, results
    assert not psutil.pid_exists(before)
