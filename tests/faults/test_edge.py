"""Attacks on nginx from a few addresses: other clients get fast answers, and nginx's memory stays bounded."""

import http.client
import resource
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest

from tests.faults.edge import Answer, Edge, FakeServer, address, edge, needs_nginx
from torchserve_models.client._stubs import inference_pb2, inference_pb2_grpc

pytestmark = needs_nginx
MB = 1_000_000
MEMORY_LIMIT = 256 * 2**20
"""compose's limit for nginx."""
PATH = "/predictions/resnet-50"
ATTACKERS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


def latency(running: Edge, count: int = 100) -> float:
    """Return the median latency of requests from 127.0.0.1, each on a new connection. Every request must succeed."""
    times = []
    for _ in range(count):
        begin = time.monotonic()
        connection = http.client.HTTPConnection(*address(running.url), timeout=20)
        connection.request("POST", PATH, b"abc")
        assert connection.getresponse().status == 200
        times.append(time.monotonic() - begin)
        connection.close()
    return statistics.median(times)


@contextmanager
def sockets(target: tuple[str, int], count: int, data: bytes, sources: tuple[str, ...]) -> Iterator[list]:
    """Open `count` connections from alternating source addresses, and send `data` on each."""
    opened: list[socket.socket] = []
    try:
        for number in range(count):
            connection = socket.socket()
            connection.settimeout(10)
            opened.append(connection)
            connection.bind((sources[number % len(sources)], 0))
            connection.connect(target)
            with suppress(ConnectionError):
                connection.sendall(data)
        yield opened
    finally:
        for connection in opened:
            connection.close()


def upload(path: str, length: int, sent: int) -> bytes:
    """Return the head of a request and the first `sent` bytes of its body of `length` bytes."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode() + bytes(sent)


@pytest.fixture
def running() -> Iterator[Edge]:
    with FakeServer() as torchserve, edge(torchserve) as started:
        yield started


def test_unfinished_uploads_delay_no_other_client(running):
    before, memory = latency(running), running.memory()
    addresses = tuple(f"127.0.0.{number}" for number in range(2, 22))
    with sockets(address(running.url), 300, upload(PATH, 1_500_000, 900_000), addresses):
        time.sleep(0.3)
        assert running.memory() - memory < 40 * MB  # 323 MB with a buffer of 1 MiB for each
        assert latency(running) < 2 * before + 0.02
    # A text model's route, and bodies below 1 MB.
    with sockets(address(running.url), 900, upload("/predictions/t5-small", 900_000, 800_000), ATTACKERS):
        assert latency(running) < 2 * before + 0.02
    assert running.memory() < MEMORY_LIMIT


def test_uploads_are_limited_per_address(running):
    with sockets(address(running.url), 40, upload(PATH, 5 * MB, 1000), ATTACKERS[:1]) as opened:
        time.sleep(0.5)
        statuses = Counter(answered(connection) for connection in opened)
    assert statuses == {None: 16, b"429": 24}


def answered(connection: socket.socket) -> bytes | None:
    """Return the status of a response that has already arrived, or None."""
    connection.setblocking(False)
    try:
        return connection.recv(1000).split(b" ")[1]
    except BlockingIOError:
        return None


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 10_000, reason="too few open files allowed"
)
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /predictions/resnet-50 HTTP/1.1\r\nHost: x\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"a" * 3900 + b"\r\nb: " + b"b" * 3900 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["silent", "unfinished header", "long unfinished header", "kept alive"],
)
def test_idle_connections_delay_no_other_client(running, sent):
    before = latency(running)
    with sockets(address(running.url), 8400, sent, ATTACKERS):
        assert latency(running) < 2 * before + 0.02
        assert running.memory() < MEMORY_LIMIT


PREDICTION = (
    b"\0" + (6).to_bytes(4, "big") + inference_pb2.PredictionResponse(prediction=b"done").SerializeToString()
)


@contextmanager
def grpc_edge(
    seconds: float, **changes: Any
) -> Iterator[tuple[Edge, FakeServer, inference_pb2_grpc.InferenceAPIsServiceStub]]:
    """Run nginx in front of a fake gateway, which answers each gRPC call after `seconds`."""
    headers = {"Content-Type": "application/grpc", "X-Grpc-Status": "0"}
    with (
        FakeServer() as torchserve,
        FakeServer(lambda request: Answer(body=PREDICTION, seconds=seconds, headers=headers)) as gateway,
        edge(torchserve, gateway, **changes) as running,
        grpc.insecure_channel(running.config.grpc) as channel,
    ):
        yield running, gateway, inference_pb2_grpc.InferenceAPIsServiceStub(channel)


def message(size: int) -> inference_pb2.PredictionsRequest:
    return inference_pb2.PredictionsRequest(model_name="resnet-50", input={"data": bytes(size)})


def test_250_calls_on_one_grpc_connection_are_answered():
    with grpc_edge(0.05) as (running, gateway, stub):
        assert stub.Predictions(message(10), timeout=20).prediction == b"done"
        before, memory = latency(running), running.memory()
        calls = [stub.Predictions.future(message(990_000), timeout=60) for _ in range(250)]
        during, peak = latency(running), 0
        while not all(call.done() for call in calls):
            peak = max(peak, running.memory())
            time.sleep(0.02)
        assert [call.code() for call in calls] == [grpc.StatusCode.OK] * 250
    assert peak - memory < 40 * MB  # 250 MB with a buffer of 1 MiB for each
    assert during < 2 * before + 0.1  # meanwhile this machine also sends and receives the 250 MB
    sizes = [int(request.headers["content-length"]) for request in gateway.received]
    assert sum(size > 990_000 for size in sizes) == 250


def test_grpc_call_that_times_out_is_not_resent():
    """A hanging server would otherwise receive the call a second time."""
    with grpc_edge(3, upstream_timeout_s=1) as (_, gateway, stub):
        with pytest.raises(grpc.RpcError) as late:
            stub.Predictions(message(10), timeout=20)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(gateway.received) == 1


def test_grpc_message_above_16_mib_is_rejected_and_the_gateway_may_be_down():
    with (
        FakeServer() as torchserve,
        edge(torchserve) as running,
        grpc.insecure_channel(running.config.grpc) as channel,
    ):
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        for size, code in ((10, grpc.StatusCode.UNAVAILABLE), (17 << 20, grpc.StatusCode.RESOURCE_EXHAUSTED)):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Predictions(message(size), timeout=20)
            assert refused.value.code() is code


def test_bodies_beyond_the_memory_budget_are_rejected():
    """TorchServe receives only as many large bodies at a time as fit its memory. Small requests are answered."""
    with FakeServer(lambda request: Answer(seconds=0.3)) as torchserve, edge(torchserve) as running:
        memory = running.memory()
        body = bytes(15 * MB)

        def send(number: int) -> tuple[int, str | None]:
            connection = http.client.HTTPConnection(
                *address(running.url), timeout=60, source_address=(f"127.0.0.{2 + number % 20}", 0)
            )
            with suppress(BrokenPipeError, ConnectionResetError):  # rejected before the body was sent
                connection.request("POST", PATH, body)
            try:
                response = connection.getresponse()
                return response.status, response.headers["Retry-After"]
            except ConnectionError:
                return 0, None
            finally:
                connection.close()

        with ThreadPoolExecutor(40) as threads:
            answers = threads.map(send, range(200))
            while torchserve.most_in_progress == 0:
                time.sleep(0.01)
            during = latency(running, 10)
            statuses = Counter(answers)
        large = [
            request for request in torchserve.received if request.headers["content-length"] == "15000000"
        ]
        assert statuses.keys() <= {(200, None), (429, "1"), (0, None)}
        assert statuses[200, None] == len(large) >= 6
        assert statuses[429, "1"] > 0
        assert torchserve.most_in_progress <= 6 + 1  # six large requests and a small one
        assert during < 2
        assert running.memory() - memory < 60 * MB
