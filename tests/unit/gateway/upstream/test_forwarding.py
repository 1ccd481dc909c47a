"""Headers, deadlines and disconnects of a request reach TorchServe."""

import asyncio
import time

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request

from handlers.core.deadline import read_timing
from tests.unit.gateway.torchserve_stub import TorchServeStub
from torchserve_models.gateway.app import create_app
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.upstream.forwarding import run_until_disconnect

SETTINGS = GatewaySettings(image_model="images", summarizers={"t5": "texts"})
ROUTE = "/predict/text_summarize"
TEXT = {"text": "Hello"}


class Upstream(httpx.AsyncBaseTransport):
    """A slow TorchServe that records its requests and the number of canceled requests."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.requests = []
        self.canceled = 0
        self.served = TorchServeStub()

    async def handle_async_request(self, request):
        self.requests.append(request)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        return self.served.handle_rest(request)


def client_of(upstream):
    transport = httpx.ASGITransport(create_app(SETTINGS, upstream), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def test_headers_are_forwarded():
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
    assert "X-Edge-Id" not in without.headers  # no header of the previous request remains


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({"X-Request-Timeout": "0.3"}, True),
        # Half of the time had passed when the gateway received the request.
        ({"X-Request-Timeout": "10", "X-Request-Start": "ago 9.7"}, True),
        ({"X-Request-Timeout": "2", "X-Request-Start": "ago 5"}, False),
    ],
)
async def test_deadline_ends_the_request(headers, sent):
    upstream = Upstream(5)
    if "X-Request-Start" in headers:
        headers["X-Request-Start"] = str(time.time() - float(headers["X-Request-Start"].split()[1]))
    start = time.monotonic()
    async with client_of(upstream) as http:
        response = await http.post(ROUTE, json=TEXT, headers=headers)
    assert time.monotonic() - start < 4
    assert (response.status_code, response.json()["type"]) == (504, "DeadlineExceeded")
    assert "X-Request-Timeout" in response.json()["message"]
    assert (len(upstream.requests), upstream.canceled) == ((1, 1) if sent else (0, 0))


@pytest.mark.parametrize("start", ["yesterday", "nan", "0", "", "99999999999", "-5"])
async def test_invalid_arrival_time_is_ignored(start):
    async with client_of(Upstream()) as http:
        headers = {"X-Request-Timeout": "20", "X-Request-Start": start}
        assert (await http.post(ROUTE, json=TEXT, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "timeout", ["soon", "-1", "nan", "inf", "1e3", "1_0", "+5", "5s", "1000001", "9" * 400]
)
async def test_invalid_timeout_has_the_error_of_the_handlers(timeout):
    upstream = Upstream()
    async with client_of(upstream) as http:
        response = await http.post(ROUTE, json=TEXT, headers={"X-Request-Timeout": timeout})
    assert (response.status_code, response.json()["type"]) == (400, "InvalidRequest")
    assert response.json()["message"] == read_timing({"x-request-timeout": timeout}).error.message
    assert upstream.requests == []


async def test_timeout_of_zero_has_expired_and_empty_timeout_is_ignored():
    upstream = Upstream()
    async with client_of(upstream) as http:
        response = await http.post(ROUTE, json=TEXT, headers={"X-Request-Timeout": "0"})
        assert (response.status_code, response.json()["type"]) == (504, "DeadlineExceeded")
        assert upstream.requests == []
        response = await http.post(ROUTE, json=TEXT, headers={"X-Request-Timeout": ""})
    assert response.status_code == 200


async def test_disconnect_cancels_the_request_to_torchserve():
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
    app = create_app(SETTINGS, upstream)
    task = asyncio.create_task(app(scope, receive, send))
    while not upstream.requests:
        await asyncio.sleep(0.01)
    left.set()
    await asyncio.wait_for(task, 5)
    assert upstream.canceled == 1


async def test_result_and_errors_of_the_work_are_returned():
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
