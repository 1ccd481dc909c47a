"""What lost its connection to TorchServe waits until that is back, where there is hope."""

import asyncio
import math
import time

import httpx
import pytest

from torchserve_models.gateway import waiting
from torchserve_models.gateway.unavailable import WORKER_DIED
from torchserve_models.gateway.waiting import ResendingTransport, Waiting


class Known:
    """What the gateway knows of readiness."""

    def __init__(self):
        self.ready = {"images": True}
        self.hope = True
        self.at = math.inf
        self.asked = []

    @property
    def known_at(self):
        return self.at

    def may_return(self, limit_s):
        assert limit_s == waiting.LONGEST_WAIT_S
        return self.hope

    def answers(self, name, version):
        if all(self.ready.values()):
            return True
        if name:
            self.asked.append((name, version))
        return self.ready.get(name, False)


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(waiting, "STEP_S", 0.01)
    return Known()


def until_ready(known, name="images", version=None, **options):
    return asyncio.run(Waiting(known, **options).until_ready(name, version))


def test_what_is_ready_is_not_waited_for(known):
    known.ready["texts"] = False
    assert until_ready(known, "images", "1.0")
    assert known.asked == [("images", "1.0")]


async def change(known, seconds, action):
    task = asyncio.create_task(Waiting(known).until_ready("images"))
    await asyncio.sleep(seconds)
    assert not task.done()
    action()
    return await asyncio.wait_for(task, 10)


def test_a_model_that_comes_back(known):
    known.ready["images"] = False
    assert asyncio.run(change(known, 0.1, lambda: known.ready.update(images=True)))


def test_a_model_that_is_not_registered_again_yet(known):
    known.ready = {"texts": False}
    assert asyncio.run(change(known, 0.1, lambda: known.ready.update(images=True)))


def test_what_was_known_before_the_loss_does_not_count(known):
    known.at = time.monotonic()
    assert asyncio.run(change(known, 0.1, lambda: setattr(known, "at", math.inf)))


def test_without_hope_nobody_waits(known):
    known.ready["images"] = False
    assert not asyncio.run(change(known, 0.1, lambda: setattr(known, "hope", False)))


def test_the_wait_has_an_end(known, monkeypatch):
    monkeypatch.setattr(waiting, "LONGEST_WAIT_S", 0.1)
    known.ready["images"] = False
    assert not until_ready(known)


def test_no_more_than_so_many_wait(known):
    known.ready["images"] = False
    assert not until_ready(known, max_waiting=0)


def test_the_whole_server_where_no_model_is_named(known):
    assert until_ready(known, "")
    assert known.asked == []


class Breaking(httpx.AsyncBaseTransport):
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


def send(known, transport, path):
    async def run():
        async with httpx.AsyncClient(transport=ResendingTransport(transport, Waiting(known))) as client:
            return await client.post(f"http://torchserve{path}", content=b"body")

    return asyncio.run(run())


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError])
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/predictions/texts", ("texts", None)),
        ("/predictions/texts/2.0", ("texts", "2.0")),
        ("/v2/models/texts/infer", ("texts", None)),
        ("/v2/models/texts/versions/2.0/infer", ("texts", "2.0")),
    ],
)
def test_a_prediction_is_sent_once_more(known, error, path, asked):
    known.ready |= {"texts": True, "other": False}
    transport = Breaking(error("broken"))
    assert send(known, transport, path).status_code == 200
    assert transport.bodies == [b"body"] * 2
    assert known.asked == [asked]


def test_it_is_not_sent_a_third_time(known):
    transport = Breaking(httpx.ReadError("1"), httpx.ReadError("2"))
    with pytest.raises(httpx.ReadError, match="2"):
        send(known, transport, "/predictions/images")


def test_without_hope_the_error_passes(known):
    known.hope = False
    transport = Breaking(httpx.ReadError("1"))
    with pytest.raises(httpx.ReadError, match="1"):
        send(known, transport, "/predictions/images")
    assert len(transport.bodies) == 1


def test_a_timeout_is_final(known):
    transport = Breaking(httpx.ReadTimeout("1"))
    with pytest.raises(httpx.ReadTimeout):
        send(known, transport, "/predictions/images")


def died(status, body=WORKER_DIED):
    return httpx.Response(status, content=body)


@pytest.mark.parametrize("status", [500, 507])
def test_a_worker_that_died_costs_one_more_attempt(known, status):
    transport = Breaking(died(status))
    assert send(known, transport, "/predictions/images").status_code == 200
    assert transport.bodies == [b"body"] * 2
    transport = Breaking(died(status), died(status))
    assert send(known, transport, "/predictions/images").status_code == status
    assert len(transport.bodies) == 2


@pytest.mark.parametrize(
    "answer", [(500, b"another reason"), (507, b"out of memory"), (503, WORKER_DIED), (200, WORKER_DIED)]
)
def test_other_answers_pass(known, answer):
    transport = Breaking(died(*answer))
    assert send(known, transport, "/predictions/images").status_code == answer[0]
    assert len(transport.bodies) == 1


def test_deaths_beyond_the_budget_are_not_sent_again(known, monkeypatch):
    monkeypatch.setattr("torchserve_models.client.retry.MAX_SAVED_RETRIES", 0.0)
    transport = Breaking(died(500))
    assert send(known, transport, "/predictions/images").status_code == 500
