"""Retries: the calls that are resent, the retry budget, and the deadline of an operation."""

import time

import httpx
import pytest

from tests.unit.client.fake_torchserve import NO_WORKER
from tests.unit.client.socket_server import classify, scale
from torchserve_models import client
from torchserve_models.client import (
    BadRequest,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    Timeout,
    TorchServeError,
    Unavailable,
    WorkerDied,
    retry,
)
from torchserve_models.client.call_types import RestCall
from torchserve_models.client.deadlines import Deadline
from torchserve_models.client.retry import MAX_SAVED_RETRIES, OperationContext, RetryBudget, RetryState
from torchserve_models.client.settings import Settings

OVERLOADED = {"code": 503, "type": "ServiceUnavailableException", "message": NO_WORKER.format("images")}

DIED = {"code": 500, "type": "InternalServerException", "message": "Worker died."}

BROKEN = {"code": 500, "type": "InternalServerException", "message": "number of batch response mismatched"}

LATE = {"code": 504, "type": "DeadlineExceeded", "message": "the deadline has passed"}

GET = RestCall("inference", "GET", "/", bytes)

REFUSED = {"code": 400, "type": "InvalidImage", "message": "no image"}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "INITIAL_PAUSE_S", 0.001)


class Failing:
    """Transport that fails the first `failures` times, by an answer or an httpx exception, and counts requests."""

    def __init__(self, failure, failures):
        self.failure, self.failures, self.count = failure, failures, 0

    def __call__(self, request):
        self.count += 1
        if self.count > self.failures:
            return httpx.Response(200, json=[{"label": "x", "score": 1}])
        if isinstance(self.failure, dict):
            return httpx.Response(self.failure["code"], json=self.failure)
        raise self.failure("as a test wants it", request=request)


@pytest.mark.parametrize(
    "failure",
    [OVERLOADED, httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError],
)
def test_failed_prediction_is_resent(call, failure):
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
def test_last_retry_raises_the_error(call, failure, error, retries):
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
def test_permanent_error_is_not_retried(call, failure, error):
    server = Failing(failure, 99)
    with pytest.raises(error):
        call(classify, transport=httpx.MockTransport(server), retries=3)
    assert server.count == 1


@pytest.mark.parametrize(
    ("failure", "count"),
    [(httpx.ConnectError, 4), (httpx.ConnectTimeout, 4), (httpx.ReadError, 1), (OVERLOADED, 1), (DIED, 1)],
)
def test_change_is_resent_only_if_nothing_was_sent(call, failure, count):
    server = Failing(failure, 99)
    with pytest.raises(TorchServeError):
        call(scale, transport=httpx.MockTransport(server), retries=3)
    assert server.count == count


def test_request_that_kills_its_worker_is_sent_at_most_twice(call):
    for code in (500, 507):
        server = Failing(DIED | {"code": code}, 99)
        with pytest.raises(WorkerDied):
            call(classify, transport=httpx.MockTransport(server), retries=9)
        assert server.count == 2
    assert call(classify, transport=httpx.MockTransport(Failing(DIED, 1)))[0].label == "x"


def test_worker_death_is_retried_once_per_operation(call, connection, fake):
    """A list of texts over TorchServe's gRPC is one call per text."""
    fake.deaths = [True, False, True]
    with pytest.raises(WorkerDied):
        call(lambda c: c.summarize("texts", ["a", "b", "c"]), protocol="grpc", **connection)
    assert len(fake.received) == 3


def test_request_retried_by_proxy_is_not_resent(call):
    def answer(request):
        requests.append(request)
        return httpx.Response(500, json=DIED, headers={"X-Retried": "1", "X-Request-Id": "7"})

    requests = []
    with pytest.raises(WorkerDied) as caught:
        call(classify, transport=httpx.MockTransport(answer))
    assert len(requests) == 1
    assert caught.value.retried
    assert caught.value.as_dict()["request_id"] == "7"


def test_retry_budget_bounds_retries_of_all_operations():
    """If every connection breaks, 1,000 calls are followed by about 100 retries."""
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


def test_retry_budget_grows_with_calls_and_time():
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


def test_health_calls_are_not_retried(call):
    server = Failing(httpx.ConnectError, 99)
    assert call(lambda c: c.live(), transport=httpx.MockTransport(server), retries=3) is False
    assert server.count == 1


def test_grpc_retries_follow_the_same_rules(call, connection, fake):
    for model, error, count in (
        ("busy", Overloaded, 3),
        ("dying", WorkerDied, 2),
        ("images", BadRequest, 1),
    ):
        fake.received.clear()
        with pytest.raises(error):
            call(lambda c, m=model: c.classify(m, b"bad"), protocol="grpc", retries=2, **connection)
        assert fake.received == ["Predictions"] * count


def test_retry_after_of_proxy_beyond_deadline_raises_overloaded(call):
    def refuse(request):
        requests.append(request)
        return httpx.Response(429, headers={"retry-after": "7"}, text="<html>slow down</html>")

    requests = []
    with pytest.raises(Overloaded) as caught:
        call(classify, transport=httpx.MockTransport(refuse), timeout=5)
    assert caught.value.retry_after == 7
    assert len(requests) == 1  # seven seconds would be after the deadline


def test_retry_pauses_grow_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(retry, "INITIAL_PAUSE_S", 0.1)
    retry_state = RetryState(GET, OperationContext(Settings(retries=10, timeout=1000), RetryBudget()))
    pauses = [retry_state.pause_after(Overloaded("full")) for _ in range(10)]
    longest = [0.1, 0.2, 0.4, 0.8, 1.6] + [2.0] * 5
    assert all(top / 2 <= pause <= top for pause, top in zip(pauses, longest, strict=True))
    with pytest.raises(Overloaded):
        retry_state.pause_after(Overloaded("full"))


def test_retry_does_not_pause_beyond_deadline():
    now = [0.0]
    deadline = Deadline(10, clock=lambda: now[0])
    context = OperationContext(Settings(), RetryBudget())
    context.deadline = deadline
    retry_state = RetryState(GET, context)
    now[0] = 9.9999
    with pytest.raises(Overloaded):
        retry_state.pause_after(Overloaded("full"))
    now[0] = 10.0
    with pytest.raises(Overloaded):  # the server's reason, not that the time is over
        retry_state.pause_after(Overloaded("full"))
    with pytest.raises(Timeout, match="10 s"):
        deadline.left()


def test_timeout_covers_retry_pauses(call, monkeypatch):
    monkeypatch.setattr(retry, "INITIAL_PAUSE_S", 0.2)
    server = Failing(OVERLOADED, 99)
    with pytest.raises(Overloaded):
        call(classify, transport=httpx.MockTransport(server), retries=99, timeout=0.25)
    assert server.count <= 3
