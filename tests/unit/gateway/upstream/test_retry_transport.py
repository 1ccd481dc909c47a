"""Requests that lost TorchServe or their worker wait for its recovery and are sent once more."""

import asyncio
import math
import time

import httpx
import pytest

from torchserve_models.gateway.upstream import retry_transport
from torchserve_models.gateway.upstream.retry_transport import RecoveryWaiter, RetryTransport
from torchserve_models.gateway.upstream.unavailable_diagnosis import WORKER_DIED


class FakeReadiness:
    """A fake ReadinessPoller."""

    def __init__(self):
        self.ready = {"images": True}
        self.hope = True
        self.at = math.inf
        self.checks = []

    @property
    def polled_at(self):
        return self.at

    def was_ready_within(self, limit_s):
        assert limit_s == retry_transport.MAX_WAIT_S
        return self.hope

    def can_answer(self, name, version):
        if all(self.ready.values()):
            return True
        if name:
            self.checks.append((name, version))
        return self.ready.get(name, False)


@pytest.fixture
def readiness(monkeypatch):
    monkeypatch.setattr(retry_transport, "CHECK_INTERVAL_S", 0.01)
    return FakeReadiness()


def until_ready(readiness, name="images", version=None, **options):
    return asyncio.run(RecoveryWaiter(readiness, **options).until_ready(name, version))


def test_ready_model_needs_no_wait(readiness):
    readiness.ready["texts"] = False
    assert until_ready(readiness, "images", "1.0")
    assert readiness.checks == [("images", "1.0")]


async def change(readiness, seconds, action):
    task = asyncio.create_task(RecoveryWaiter(readiness).until_ready("images"))
    await asyncio.sleep(seconds)
    assert not task.done()
    action()
    return await asyncio.wait_for(task, 10)


def test_wait_ends_once_the_model_is_ready(readiness):
    readiness.ready["images"] = False
    assert asyncio.run(change(readiness, 0.1, lambda: readiness.ready.update(images=True)))


def test_unregistered_model_is_waited_for(readiness):
    readiness.ready = {"texts": False}
    assert asyncio.run(change(readiness, 0.1, lambda: readiness.ready.update(images=True)))


def test_readiness_polled_before_the_lost_connection_is_ignored(readiness):
    readiness.at = time.monotonic()
    assert asyncio.run(change(readiness, 0.1, lambda: setattr(readiness, "at", math.inf)))


def test_wait_ends_at_once_if_no_model_was_ready_recently(readiness):
    readiness.ready["images"] = False
    assert not asyncio.run(change(readiness, 0.1, lambda: setattr(readiness, "hope", False)))


def test_wait_ends_after_the_maximum_time(readiness, monkeypatch):
    monkeypatch.setattr(retry_transport, "MAX_WAIT_S", 0.1)
    readiness.ready["images"] = False
    assert not until_ready(readiness)


def test_number_of_waiting_requests_is_limited(readiness):
    readiness.ready["images"] = False
    assert not until_ready(readiness, max_waiting=0)


def test_request_without_a_model_waits_for_the_server(readiness):
    assert until_ready(readiness, "")
    assert readiness.checks == []


class FailingTransport(httpx.AsyncBaseTransport):
    def __init__(self, *errors):
        self.errors = list(errors)
        self.bodies = []

    async def handle_async_request(self, request):
        self.bodies.append(await request.aread())
        if self.errors:
            error = self.errors.pop(0)
            if isinstance(error, httpx.Response):
                return error
            raise error
        return httpx.Response(200)


def send(readiness, transport, path):
    async def run():
        async with httpx.AsyncClient(
            transport=RetryTransport(transport, RecoveryWaiter(readiness))
        ) as client:
            return await client.post(f"http://torchserve{path}", content=b"body")

    return asyncio.run(run())


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError])
@pytest.mark.parametrize(
    ("path", "checks"),
    [
        ("/predictions/texts", ("texts", None)),
        ("/predictions/texts/2.0", ("texts", "2.0")),
        ("/v2/models/texts/infer", ("texts", None)),
        ("/v2/models/texts/versions/2.0/infer", ("texts", "2.0")),
    ],
)
def test_prediction_is_sent_once_more(readiness, error, path, checks):
    readiness.ready |= {"texts": True, "other": False}
    transport = FailingTransport(error("broken"))
    assert send(readiness, transport, path).status_code == 200
    assert transport.bodies == [b"body"] * 2
    assert readiness.checks == [checks]


def test_prediction_is_not_sent_a_third_time(readiness):
    transport = FailingTransport(httpx.ReadError("1"), httpx.ReadError("2"))
    with pytest.raises(httpx.ReadError, match="2"):
        send(readiness, transport, "/predictions/images")


def test_connection_error_is_raised_if_the_model_does_not_recover(readiness):
    readiness.hope = False
    transport = FailingTransport(httpx.ReadError("1"))
    with pytest.raises(httpx.ReadError, match="1"):
        send(readiness, transport, "/predictions/images")
    assert len(transport.bodies) == 1


def test_request_that_timed_out_is_not_retried(readiness):
    transport = FailingTransport(httpx.ReadTimeout("1"))
    with pytest.raises(httpx.ReadTimeout):
        send(readiness, transport, "/predictions/images")


def dead_worker_response(status, body=WORKER_DIED):
    return httpx.Response(status, content=body)


@pytest.mark.parametrize("status", [500, 507])
def test_prediction_of_a_dead_worker_is_sent_once_more(readiness, status):
    transport = FailingTransport(dead_worker_response(status))
    response = send(readiness, transport, "/predictions/images")
    assert (response.status_code, response.headers["x-retried"]) == (200, "1")
    assert transport.bodies == [b"body"] * 2
    transport = FailingTransport(dead_worker_response(status), dead_worker_response(status))
    assert send(readiness, transport, "/predictions/images").status_code == status
    assert len(transport.bodies) == 2


@pytest.mark.parametrize(
    "answer", [(500, b"another reason"), (507, b"out of memory"), (503, WORKER_DIED), (200, WORKER_DIED)]
)
def test_responses_of_living_workers_are_returned_unchanged(readiness, answer):
    transport = FailingTransport(dead_worker_response(*answer))
    assert send(readiness, transport, "/predictions/images").status_code == answer[0]
    assert len(transport.bodies) == 1


def test_predictions_beyond_the_retry_budget_are_not_retried(readiness, monkeypatch):
    monkeypatch.setattr("torchserve_models.client.retry.MAX_SAVED_RETRIES", 0.0)
    transport = FailingTransport(dead_worker_response(500))
    assert send(readiness, transport, "/predictions/images").status_code == 500
