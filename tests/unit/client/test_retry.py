"""What is sent again, what never is, and that no operation outlives its deadline."""

import asyncio
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

from tests.unit.client.fake_torchserve import NO_WORKER
from torchserve_models import client
from torchserve_models.client import (
    BadRequest,
    DeadlineExceeded,
    Endpoints,
    InternalError,
    Overloaded,
    Timeout,
    TooLarge,
    TorchServeError,
    Unavailable,
    WorkerDied,
    retry,
)
from torchserve_models.client.calls import RestCall
from torchserve_models.client.deadlines import Deadline
from torchserve_models.client.retry import MAX_SAVED_RETRIES, Attempts, Execution, RetryBudget
from torchserve_models.client.settings import Settings

OVERLOADED = {"code": 503, "type": "ServiceUnavailableException", "message": NO_WORKER.format("images")}
DIED = {"code": 500, "type": "InternalServerException", "message": "Worker died."}
BROKEN = {"code": 500, "type": "InternalServerException", "message": "number of batch response mismatched"}
LATE = {"code": 504, "type": "DeadlineExceeded", "message": "the deadline has passed"}
GET = RestCall("inference", "GET", "/", bytes)
REFUSED = {"code": 400, "type": "InvalidImage", "message": "no image"}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)


class Failing:
    """Fails the first `failures` times, by an answer or an exception of httpx, and counts the requests."""

    def __init__(self, failure, failures):
        self.failure, self.failures, self.count = failure, failures, 0

    def __call__(self, request):
        self.count += 1
        if self.count > self.failures:
            return httpx.Response(200, json=[{"label": "x", "score": 1}])
        if isinstance(self.failure, dict):
            return httpx.Response(self.failure["code"], json=self.failure)
        raise self.failure("as a test wants it", request=request)


def classify(client):
    return client.classify("images", b"x")


def scale(client):
    return client.scale("images", 1, force=True)


@pytest.mark.parametrize(
    "failure",
    [OVERLOADED, httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError],
)
def test_a_prediction_is_sent_again(call, failure):
    server = Failing(failure, 3)
    assert call(classify, transport=httpx.MockTransport(server), retries=3)[0].label == "x"
    assert server.count == 4


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (OVERLOADED, Overloaded),
        (httpx.ConnectError, Unavailable),
        (httpx.ReadError, Unavailable),
    ],
)
@pytest.mark.parametrize("retries", [0, 2])
def test_after_the_last_retry_the_error_comes_out(call, failure, error, retries):
    server = Failing(failure, 99)
    with pytest.raises(error):
        call(classify, transport=httpx.MockTransport(server), retries=retries)
    assert server.count == retries + 1


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (BROKEN, InternalError),
        (REFUSED, BadRequest),
        (LATE, DeadlineExceeded),
        (httpx.ReadTimeout, Timeout),
        (httpx.WriteTimeout, Timeout),
    ],
)
def test_what_would_fail_again_is_not_sent_again(call, failure, error):
    server = Failing(failure, 99)
    with pytest.raises(error):
        call(classify, transport=httpx.MockTransport(server), retries=3)
    assert server.count == 1


@pytest.mark.parametrize(
    ("failure", "count"),
    [(httpx.ConnectError, 4), (httpx.ConnectTimeout, 4), (httpx.ReadError, 1), (OVERLOADED, 1), (DIED, 1)],
)
def test_a_change_is_sent_again_only_if_nothing_was_sent(call, failure, count):
    server = Failing(failure, 99)
    with pytest.raises(TorchServeError):
        call(scale, transport=httpx.MockTransport(server), retries=3)
    assert server.count == count


def test_a_request_that_kills_its_worker_is_sent_twice_at_most(call):
    for code in (500, 507):
        server = Failing(DIED | {"code": code}, 99)
        with pytest.raises(WorkerDied):
            call(classify, transport=httpx.MockTransport(server), retries=9)
        assert server.count == 2
    assert call(classify, transport=httpx.MockTransport(Failing(DIED, 1)))[0].label == "x"


def test_a_dead_worker_counts_once_in_an_operation_of_many_calls(call, connection, fake):
    """A list of texts over TorchServe's gRPC is one call a text."""
    fake.deaths = [True, False, True]
    with pytest.raises(WorkerDied):
        call(lambda c: c.summarize("texts", ["a", "b", "c"]), protocol="grpc", **connection)
    assert len(fake.seen) == 3


def test_what_the_proxy_has_sent_twice_is_not_sent_again(call):
    def answer(request):
        seen.append(request)
        return httpx.Response(500, json=DIED, headers={"X-Retried": "1", "X-Request-Id": "7"})

    seen = []
    with pytest.raises(WorkerDied) as caught:
        call(classify, transport=httpx.MockTransport(answer))
    assert len(seen) == 1
    assert caught.value.retried
    assert caught.value.as_dict()["request_id"] == "7"


def test_the_budget_bounds_the_retries_of_all_operations():
    """Against a server that breaks every connection, 1,000 calls send little more than a tenth as many again."""
    count = 0

    def refuse(request):
        nonlocal count
        count += 1
        raise httpx.ReadError("as a test wants it", request=request)

    start = time.monotonic()
    with client.Client(transport=httpx.MockTransport(refuse), retries=3) as connection:
        for _ in range(1000):
            with pytest.raises(Unavailable):
                classify(connection)
    earned = MAX_SAVED_RETRIES + 0.1 * 1000 + retry.MIN_RETRIES_PER_SECOND * (time.monotonic() - start)
    assert 1000 + MAX_SAVED_RETRIES < count <= 1000 + earned + 1


def test_the_budget_is_earned_by_calls_and_by_time():
    now = [0.0]
    budget = RetryBudget(clock=lambda: now[0])
    assert [budget.take() for _ in range(31)] == [True] * 30 + [False]
    for _ in range(11):
        budget.add_call()
    assert [budget.take() for _ in range(2)] == [True, False]
    now[0] = 1.0
    assert [budget.take() for _ in range(4)] == [True] * 3 + [False]
    now[0] = 1000.0
    assert [budget.take() for _ in range(100)].count(True) == MAX_SAVED_RETRIES


def test_health_asks_once(call):
    server = Failing(httpx.ConnectError, 99)
    assert call(lambda c: c.live(), transport=httpx.MockTransport(server), retries=3) is False
    assert server.count == 1


def test_grpc_sends_again_by_the_same_rules(call, connection, fake):
    for model, error, count in (
        ("busy", Overloaded, 3),
        ("dying", WorkerDied, 2),
        ("images", BadRequest, 1),
    ):
        fake.seen.clear()
        with pytest.raises(error):
            call(lambda c, m=model: c.classify(m, b"bad"), protocol="grpc", retries=2, **connection)
        assert fake.seen == ["Predictions"] * count


def test_a_proxy_says_when_to_come_back(call):
    def refuse(request):
        seen.append(request)
        return httpx.Response(429, headers={"retry-after": "7"}, text="<html>slow down</html>")

    seen = []
    with pytest.raises(Overloaded) as caught:
        call(classify, transport=httpx.MockTransport(refuse), timeout=5)
    assert caught.value.retry_after == 7
    assert len(seen) == 1  # seven seconds would be after the deadline


def test_pauses_grow_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.1)
    attempts = Attempts(GET, Execution(Settings(retries=10, timeout=1000), RetryBudget()))
    pauses = [attempts.pause_after(Overloaded("full")) for _ in range(10)]
    longest = [0.1, 0.2, 0.4, 0.8, 1.6] + [2.0] * 5
    assert all(top / 2 <= pause <= top for pause, top in zip(pauses, longest, strict=True))
    with pytest.raises(Overloaded):
        attempts.pause_after(Overloaded("full"))


def test_no_pause_beyond_the_deadline():
    now = [0.0]
    deadline = Deadline(10, clock=lambda: now[0])
    execution = Execution(Settings(), RetryBudget())
    execution.deadline = deadline
    attempts = Attempts(GET, execution)
    now[0] = 9.9999
    with pytest.raises(Overloaded):
        attempts.pause_after(Overloaded("full"))
    now[0] = 10.0
    with pytest.raises(Overloaded):  # the server's reason, not that the time is over
        attempts.pause_after(Overloaded("full"))
    with pytest.raises(Timeout, match="10 s"):
        deadline.left()


@contextmanager
def socket_server(serve):
    """Calls `serve(connection)` for each connection, in a thread each; gives the endpoints and the count."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted = []

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            accepted.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    port = listener.getsockname()[1]
    try:
        yield (
            Endpoints.at(
                inference_port=port,
                management_port=port,
                metrics_port=port,
                grpc_port=port,
                grpc_management_port=port,
            ),
            accepted,
        )
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in accepted:
            connection.close()


@pytest.mark.parametrize("protocol", ["rest", "grpc", "open-inference", "open-inference-grpc"])
def test_a_silent_server_meets_the_deadline(call, protocol):
    with socket_server(lambda connection: None) as (endpoints, _), pytest.raises(Timeout, match=r"0\.3 s"):
        call(classify, endpoints=endpoints, protocol=protocol, timeout=0.3)


def test_a_trickling_server_meets_the_deadline(call):
    def trickle(connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        try:
            for _ in range(1000):
                connection.sendall(b" ")
                time.sleep(0.01)
        except OSError:
            pass

    with socket_server(trickle) as (endpoints, accepted), pytest.raises(Timeout):
        call(classify, endpoints=endpoints, timeout=0.3)
    assert len(accepted) == 1


def test_a_connection_that_breaks_after_a_change_was_sent(call):
    def hang_up(connection):
        connection.recv(65536)
        connection.shutdown(socket.SHUT_RDWR)

    with socket_server(hang_up) as (endpoints, accepted):
        with pytest.raises(Unavailable) as caught:
            call(scale, endpoints=endpoints, retries=3)
        assert caught.value.sent
        assert len(accepted) == 1
        with pytest.raises(Unavailable):
            call(classify, endpoints=endpoints, retries=3)
        assert len(accepted) == 1 + 4


@pytest.mark.parametrize("protocol", ["rest", "grpc", "open-inference", "open-inference-grpc"])
@pytest.mark.parametrize("operation", [classify, scale])
def test_nobody_there(call, nowhere, protocol, operation):
    with pytest.raises(Unavailable, match=r"no server answers at .*127\.0\.0\.1:1 ") as caught:
        call(operation, endpoints=nowhere, protocol=protocol, retries=1)
    assert not caught.value.sent


def test_a_message_above_the_limit_is_refused_before_it_is_sent(call, connection, fake):
    with pytest.raises(TooLarge):
        call(
            lambda c: c.classify("images", bytes(2000)),
            protocol="grpc",
            max_message_bytes=1000,
            **connection,
        )
    assert fake.seen == []


def test_the_timeout_covers_the_pauses_too(call, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.2)
    server = Failing(OVERLOADED, 99)
    with pytest.raises(Overloaded):
        call(classify, transport=httpx.MockTransport(server), retries=99, timeout=0.25)
    assert server.count <= 3


async def test_async_operations_run_at_the_same_time():
    """The server answers only once all requests are there."""
    barrier = asyncio.Barrier(20)

    async def answer(request):
        await barrier.wait()
        return httpx.Response(200, json=[{"label": "x", "score": 1}])

    async with client.AsyncClient(transport=httpx.MockTransport(answer), timeout=30) as async_client:
        answers = await asyncio.gather(*(classify(async_client) for _ in range(20)))
    assert len(answers) == 20
