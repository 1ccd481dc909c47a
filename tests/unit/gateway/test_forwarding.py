"""Headers, deadlines and disconnects of a request reach TorchServe."""

import asyncio
import time

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request

from handlers.core.deadline import read_arrival
from tests.unit.gateway.behind import Served
from torchserve_models.gateway.app import create
from torchserve_models.gateway.forwarding import run_until_disconnect
from torchserve_models.gateway.settings import Settings

SETTINGS = Settings(image_model="images", summarizers={"t5": "texts"})
ROUTE = "/predict/text_summarize"
TEXT = {"text": "Hello"}


class Upstream(httpx.AsyncBaseTransport):
    """TorchServe that takes its time; `requests` as they came, and how many were cut off."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.requests = []
        self.cancelled = 0
        self.served = Served()

    async def handle_async_request(self, request):
        self.requests.append(request)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.served.rest(request)


def client_of(upstream):
    transport = httpx.ASGITransport(create(SETTINGS, upstream), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def test_headers_are_passed_on():
    upstream = Upstream()
    headers = {
        "X-Request-Timeout": "30",
        "X-Request-Start": f"{time.time() - 1:.3f}",
        "X-Edge-Id": "0123456789abcdef0123456789abcdef",
        "X-Request-Id": "mine",
        "X-Other": "not this one",
    }
    async with client_of(upstream) as http:
        assert (await http.post(ROUTE, json=TEXT, headers=headers)).status_code == 200
        assert (await http.post(ROUTE, json=TEXT)).status_code == 200
    with_headers, without = upstream.requests
    for name in ("X-Request-Timeout", "X-Request-Start", "X-Edge-Id", "X-Request-Id"):
        assert with_headers.headers[name] == headers[name]
    assert "X-Other" not in with_headers.headers
    assert "X-Edge-Id" not in without.headers  # nothing is left of the request before


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({"X-Request-Timeout": "0.3"}, True),
        # Half of it was over when the gateway got it.
        ({"X-Request-Timeout": "10", "X-Request-Start": "ago 9.7"}, True),
        ({"X-Request-Timeout": "2", "X-Request-Start": "ago 5"}, False),
    ],
)
async def test_a_deadline_ends_the_request(headers, sent):
    upstream = Upstream(5)
    if "X-Request-Start" in headers:
        headers["X-Request-Start"] = str(time.time() - float(headers["X-Request-Start"].split()[1]))
    start = time.monotonic()
    async with client_of(upstream) as http:
        response = await http.post(ROUTE, json=TEXT, headers=headers)
    assert time.monotonic() - start < 4
    assert (response.status_code, response.json()["type"]) == (504, "DeadlineExceeded")
    assert "X-Request-Timeout" in response.json()["message"]
    assert (len(upstream.requests), upstream.cancelled) == ((1, 1) if sent else (0, 0))


@pytest.mark.parametrize("start", ["yesterday", "nan", "0", "", "99999999999", "-5"])
async def test_an_implausible_start_is_ignored(start):
    async with client_of(Upstream()) as http:
        headers = {"X-Request-Timeout": "20", "X-Request-Start": start}
        assert (await http.post(ROUTE, json=TEXT, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "timeout", ["soon", "-1", "nan", "inf", "1e3", "1_0", "+5", "5s", "1000001", "9" * 400]
)
async def test_an_invalid_timeout_is_refused_as_the_handlers_refuse_it(timeout):
    upstream = Upstream()
    async with client_of(upstream) as http:
        response = await http.post(ROUTE, json=TEXT, headers={"X-Request-Timeout": timeout})
    assert (response.status_code, response.json()["type"]) == (400, "InvalidRequest")
    assert response.json()["message"] == read_arrival({"x-request-timeout": timeout}).error.message
    assert upstream.requests == []


async def test_a_time_of_zero_has_passed_and_an_empty_one_is_none():
    upstream = Upstream()
    async with client_of(upstream) as http:
        response = await http.post(ROUTE, json=TEXT, headers={"X-Request-Timeout": "0"})
        assert (response.status_code, response.json()["type"]) == (504, "DeadlineExceeded")
        assert upstream.requests == []
        response = await http.post(ROUTE, json=TEXT, headers={"X-Request-Timeout": ""})
    assert response.status_code == 200


async def test_a_client_that_leaves_ends_its_request_to_torchserve():
    upstream, left = Upstream(30), asyncio.Event()
    messages = [{"type": "http.request", "body": b'{"text": "Hello"}', "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    scope = {"type": "http", "method": "POST", "path": ROUTE, "headers": [], "query_string": b"model=t5"}
    app = create(SETTINGS, upstream)
    task = asyncio.create_task(app(scope, receive, send))
    while not upstream.requests:
        await asyncio.sleep(0.01)
    left.set()
    await asyncio.wait_for(task, 5)
    assert upstream.cancelled == 1


async def test_work_that_ends_first_is_returned_and_its_errors_too():
    async def receive():
        await asyncio.sleep(60)

    async def work(error=None):
        if error:
            raise error
        return 7

    request = Request({"type": "http", "headers": []}, receive)
    assert await run_until_disconnect(request, work()) == 7
    with pytest.raises(KeyError):
        await run_until_disconnect(request, work(KeyError()))

    async def gone():
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await run_until_disconnect(Request({"type": "http", "headers": []}, gone), asyncio.sleep(60))
