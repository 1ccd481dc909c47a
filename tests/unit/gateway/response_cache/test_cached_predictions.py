"""The route of the response cache, with a fake nginx and a fake management API."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import pytest

from torchserve_models.gateway.app import create_app
from torchserve_models.gateway.response_cache import cached_predictions, response_cache, uncached_client
from torchserve_models.gateway.response_cache.get_client import GetClient
from torchserve_models.gateway.settings import GatewaySettings

HEADERS = {"X-Gateway-Key": "secret", "X-Cache-Route": "predictions"}
NOT_CACHED = (200, "@bypass")


class Upstream:
    """Answers the requests of the gateway: descriptions of a model, and predictions, which `requests` lists."""

    def __init__(self) -> None:
        self.version, self.started, self.status = "1.0", "2026-01-01T00:00:00.000Z", 200
        self.headers = {"Content-Type": "application/json", "Cache-Control": "no-store", "X-Retried": "1"}
        self.requests: list[httpx.Request] = []
        self.chunked = False
        self.error: Exception | None = None
        self.during_prediction = lambda: None
        self.body = b""
        self.release = asyncio.Event()
        self.release.set()
        self.management_release = asyncio.Event()
        self.management_release.set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != "nginx":  # the readiness of TorchServe
            return httpx.Response(404)
        await request.aread()
        self.requests.append(request)
        if self.error:
            raise self.error
        body = self.body or b"answer %d" % len(self.requests)
        await self.release.wait()
        self.during_prediction()
        length = {} if self.chunked else {"Content-Length": str(len(body))}
        return httpx.Response(self.status, headers=self.headers | length, stream=httpx.ByteStream(body))

    async def describe(self, path: str) -> tuple[int, bytes]:
        await self.management_release.wait()
        version = path.split("/")[3] if path.count("/") > 2 else self.version
        worker = {"id": "9000", "startTime": self.started}
        return 200, json.dumps([{"modelVersion": version, "workers": [worker]}]).encode()


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@asynccontextmanager
async def serve(upstream, monkeypatch):
    monkeypatch.setattr(GetClient, "get", lambda _, path: upstream.describe(path))
    settings = GatewaySettings(cache_bytes=2**20, uncached="http://nginx", key="secret")
    transport = httpx.ASGITransport(create_app(settings, httpx.MockTransport(upstream)))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=HEADERS) as client:
        yield client


@pytest.fixture
async def http(upstream, monkeypatch):
    async with serve(upstream, monkeypatch) as client:
        yield client


async def post(http, body=b"image", path="/cached/images", **headers) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await http.post(path, content=body, headers=names)


def redirect(response) -> tuple[int, str | None]:
    return response.status_code, response.headers.get("x-accel-redirect")


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def counted(http, result) -> float:
    text = (await http.get("/gateway/metrics")).text
    (line,) = [
        line
        for line in text.splitlines()
        if line.startswith(f'gateway_cache_requests_total{{result="{result}"')
    ]
    return float(line.split()[-1])


async def test_request_is_sent_to_nginx_as_received(http, upstream):
    response = await post(
        http,
        path="/cached/images?a=%2F1&b=%zz%22",
        content_type="image/jpeg",
        x_request_timeout="9",
        x_custom="a",
    )
    assert (response.text, response.headers["x-cache"]) == ("answer 1", "MISS")
    (request,) = upstream.requests
    assert (request.url.host, request.extensions["target"]) == (
        "nginx",
        b"/predictions/images/1.0?a=%2F1&b=%zz%22",
    )
    assert request.content == b"image"
    assert request.headers["x-gateway-key"] == "secret"
    assert (request.headers["content-type"], request.headers["x-custom"]) == ("image/jpeg", "a")
    assert not {"x-request-timeout", "x-cache-route"} & set(request.headers)


async def test_second_answer_is_cached_without_headers_of_the_first_request(http):
    first, second = await post(http), await post(http)
    assert (second.text, second.headers["x-cache"], second.headers["age"]) == ("answer 1", "HIT", "0")
    assert second.headers["content-type"] == "application/json"
    assert "cache-control" not in first.headers
    assert ("x-retried" in first.headers, "x-retried" in second.headers) == (True, False)
    assert (await counted(http, "miss"), await counted(http, "hit")) == (1, 1)


async def test_answer_of_a_version_that_was_registered_again_meanwhile_is_not_stored(http, upstream):
    first = upstream.started
    upstream.during_prediction = lambda: setattr(upstream, "started", "2026-01-02T00:00:00.000Z")
    assert (await post(http)).text == "answer 1"
    upstream.started = first
    assert (await post(http)).text == "answer 2"


async def test_default_version_that_changes_meanwhile_does_not_change_who_answers(http, upstream):
    upstream.during_prediction = lambda: setattr(upstream, "version", "2.0")
    assert [(await post(http)).text for _ in range(2)] == ["answer 1", "answer 2"]
    targets = [request.extensions["target"] for request in upstream.requests]
    assert targets == [b"/predictions/images/1.0", b"/predictions/images/2.0"]
    upstream.version = "1.0"
    response = await post(http)
    assert (response.text, response.headers["x-cache"]) == ("answer 1", "HIT")


async def test_request_after_set_default_does_not_join_the_call_of_the_old_default(http, upstream):
    upstream.release.clear()
    first = asyncio.ensure_future(post(http))
    await until(lambda: upstream.requests)
    upstream.version = "2.0"
    second = asyncio.ensure_future(post(http))
    await until(lambda: len(upstream.requests) == 2)
    upstream.release.set()
    assert [r.headers["x-cache"] for r in await asyncio.gather(first, second)] == ["MISS", "MISS"]
    assert upstream.requests[1].extensions["target"] == b"/predictions/images/2.0"


@pytest.mark.parametrize("route", ["v1", "v2"])
async def test_routes_without_versions_do_not_store_an_answer_if_the_default_changed(http, upstream, route):
    upstream.during_prediction = lambda: setattr(upstream, "version", "2.0")
    assert (await post(http, x_cache_route=route)).text == "answer 1"
    upstream.version = "1.0"
    assert (await post(http, x_cache_route=route)).text == "answer 2"


async def test_request_continues_without_the_cache_if_its_version_is_replaced_and_unregistered(
    http, upstream
):
    upstream.status = 404
    assert (await post(http)).status_code == 404
    upstream.during_prediction = lambda: setattr(upstream, "version", "2.0")
    assert redirect(await post(http)) == NOT_CACHED
    assert (await post(http, path="/cached/images/1.0")).status_code == 404  # requested


async def test_error_of_a_worker_that_restarts_is_not_computed_again(http, upstream):
    upstream.status = 503
    upstream.during_prediction = lambda: setattr(upstream, "started", "2026-01-02T00:00:00.000Z")
    assert (await post(http)).status_code == 503
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [201, 400, 429, 503])
async def test_only_status_200_is_stored(http, upstream, status):
    upstream.status = status
    responses = [await post(http) for _ in range(2)]
    assert [(r.status_code, r.text, r.headers["x-cache"]) for r in responses] == [
        (status, "answer 1", "MISS"),
        (status, "answer 2", "MISS"),
    ]


async def test_answer_with_a_cookie_is_not_stored(http, upstream):
    upstream.headers["Set-Cookie"] = "a=b"
    responses = [await post(http) for _ in range(2)]
    assert [(r.text, r.headers["set-cookie"]) for r in responses] == [
        ("answer 1", "a=b"),
        ("answer 2", "a=b"),
    ]


async def test_answer_with_a_cookie_goes_only_to_the_request_that_began_the_call(http, upstream):
    upstream.headers["Set-Cookie"] = "a=b"
    upstream.release.clear()
    first = asyncio.ensure_future(post(http))
    await until(lambda: upstream.requests)
    others = [asyncio.ensure_future(post(http)) for _ in range(3)]
    for _ in range(200):  # the others join the call
        await asyncio.sleep(0)
    upstream.release.set()
    responses = await asyncio.gather(*others)
    assert [redirect(response) for response in responses] == [NOT_CACHED] * 3
    assert not any("set-cookie" in response.headers for response in responses)
    assert (await first).headers["set-cookie"] == "a=b"
    assert len(upstream.requests) == 1


async def test_stream_is_computed_without_the_cache_and_is_tried_only_once(http, upstream):
    upstream.chunked = True
    assert [redirect(await post(http, bytes([number]))) for number in range(3)] == [NOT_CACHED] * 3
    assert len(upstream.requests) == 1
    assert await counted(http, "bypass") == 3


async def test_model_that_streamed_is_tried_again_later(upstream, monkeypatch):
    monkeypatch.setattr(cached_predictions, "BYPASS_TTL_S", 0.0)
    async with serve(upstream, monkeypatch) as http:
        upstream.chunked = True
        assert redirect(await post(http)) == NOT_CACHED
        upstream.chunked = False
        assert (await post(http)).headers["x-cache"] == "MISS"


async def test_error_of_unknown_length_does_not_disable_the_cache(http, upstream):
    upstream.chunked, upstream.status = True, 500
    assert redirect(await post(http)) == NOT_CACHED
    upstream.chunked, upstream.status = False, 200
    assert (await post(http)).headers["x-cache"] == "MISS"


async def test_large_answer_bypasses_only_for_its_request(http, upstream):
    upstream.body = bytes(uncached_client.MAX_ANSWER_BYTES + 1)
    assert [redirect(await post(http)) for _ in range(2)] == [NOT_CACHED] * 2
    assert len(upstream.requests) == 1
    upstream.body = b""
    assert (await post(http, b"other")).headers["x-cache"] == "MISS"


async def test_model_with_large_answers_in_succession_bypasses(http, upstream):
    large = bytes(uncached_client.MAX_ANSWER_BYTES + 1)
    for number, body in enumerate([large, large, b"small", large, large, large]):
        upstream.body = body
        assert (redirect(await post(http, bytes([number]))) == NOT_CACHED) == (body == large)
    assert len(upstream.requests) == 6
    upstream.body = b""
    assert redirect(await post(http, b"next")) == NOT_CACHED
    assert len(upstream.requests) == 6
    assert (await post(http, b"next", path="/cached/others")).headers["x-cache"] == "MISS"


async def test_large_answers_do_not_displace_models_that_stream(upstream, monkeypatch):
    monkeypatch.setattr(cached_predictions, "MAX_BYPASSED", 1)
    async with serve(upstream, monkeypatch) as http:
        upstream.chunked = True
        assert redirect(await post(http)) == NOT_CACHED
        upstream.chunked, upstream.body = False, bytes(uncached_client.MAX_ANSWER_BYTES + 1)
        assert redirect(await post(http, path="/cached/others")) == NOT_CACHED
        assert redirect(await post(http)) == NOT_CACHED
        assert len(upstream.requests) == 2


async def test_request_continues_without_the_cache_if_nginx_does_not_answer(http, upstream):
    upstream.error = httpx.ReadError("lost")
    assert redirect(await post(http)) == NOT_CACHED
    upstream.error = None
    assert (await post(http)).headers["x-cache"] == "MISS"


async def test_timeout_of_torchserve_is_not_computed_again(http, upstream):
    upstream.error = httpx.ReadTimeout("slow")
    responses = await asyncio.gather(*(post(http) for _ in range(3)))
    assert {(r.status_code, r.json()["type"]) for r in responses} == {(504, "Timeout")}
    assert len(upstream.requests) == 1
    await assert_no_body_is_held(http)


@pytest.mark.parametrize(
    ("route", "path", "target"),
    [
        ("predictions", "images", b"/predictions/images/1.0"),
        ("predictions", "images/1.0", b"/predictions/images/1.0"),
        ("v1", "images", b"/v1/models/images:predict"),
        ("v2", "images", b"/v2/models/images/infer"),
        ("v2-versions", "images/1.0", b"/v2/models/images/versions/1.0/infer"),
        ("predictions", "a%0d%0ab%23%3F%25", b"/predictions/a%0D%0Ab%23%3F%25/1.0"),
        ("predictions", "caf%C3%A9", b"/predictions/caf%C3%A9/1.0"),
    ],
)
async def test_target_is_built_from_the_route_and_the_names(http, upstream, route, path, target):
    await post(http, path=f"/cached/{path}", x_cache_route=route)
    assert upstream.requests[0].extensions["target"] == target


async def test_unknown_route_bypasses(http, upstream):
    assert redirect(await post(http, x_cache_route="/predictions/images")) == NOT_CACHED
    assert upstream.requests == []


async def test_routes_have_separate_answers(http):
    routes = ["predictions", "v1", "v2", "v2-versions"] * 2
    responses = [await post(http, path="/cached/images/1.0", x_cache_route=route) for route in routes]
    assert [response.headers["x-cache"] for response in responses] == ["MISS"] * 4 + ["HIT"] * 4


async def test_further_requests_bypass_while_many_are_in_progress(http, upstream, monkeypatch):
    monkeypatch.setattr(cached_predictions, "MAX_REQUESTS", 2)
    upstream.release.clear()
    first = [asyncio.ensure_future(post(http, bytes([number]))) for number in range(2)]
    await until(lambda: len(upstream.requests) == 2)
    assert redirect(await post(http, b"other")) == NOT_CACHED
    upstream.release.set()
    assert [response.headers["x-cache"] for response in await asyncio.gather(*first)] == ["MISS"] * 2
    assert (await post(http, b"other")).headers["x-cache"] == "MISS"


async def test_request_whose_body_does_not_fit_bypasses(upstream, monkeypatch):
    monkeypatch.setattr(response_cache, "BODY_BUDGET_BYTES", 1000)
    async with serve(upstream, monkeypatch) as http:
        assert redirect(await post(http, bytes(600))) == NOT_CACHED
        assert (await post(http, bytes(100))).headers["x-cache"] == "MISS"
        await assert_no_body_is_held(http)


async def test_answer_does_not_wait_for_the_check_before_it_is_stored(http, upstream):
    upstream.during_prediction = upstream.management_release.clear
    assert (await asyncio.wait_for(post(http), 10)).headers["x-cache"] == "MISS"
    upstream.management_release.set()
    assert (await post(http)).headers["x-cache"] == "HIT"


async def test_request_without_the_key_is_rejected(http, upstream):
    assert (await post(http, x_gateway_key="guess")).status_code == 404
    assert upstream.requests == []


async def test_simultaneous_requests_share_a_call(http, upstream):
    responses = await asyncio.gather(*(post(http) for _ in range(50)))
    assert {response.text for response in responses} == {"answer 1"}
    assert len(upstream.requests) == 1
    assert await counted(http, "miss") == 1
    assert await counted(http, "coalesced") + await counted(http, "hit") == 49


async def assert_no_body_is_held(http) -> None:
    async with asyncio.timeout(10):  # a call ends after its requests
        while "gateway_cache_body_bytes 0.0" not in (await http.get("/gateway/metrics")).text:
            await asyncio.sleep(0)


async def test_memory_of_bodies_is_free_afterwards(http, upstream):
    upstream.release.clear()
    requests = [asyncio.ensure_future(post(http, bytes([number % 5]))) for number in range(20)]
    await until(lambda: len(upstream.requests) == 5)
    metrics = (await http.get("/gateway/metrics")).text
    assert "gateway_body_bytes 0.0" in metrics
    assert "gateway_cache_body_bytes 0.0" not in metrics
    upstream.release.set()
    await asyncio.gather(*requests)
    await assert_no_body_is_held(http)


async def test_memory_of_a_body_is_free_after_its_request_was_canceled(http, upstream):
    upstream.release.clear()
    request = asyncio.ensure_future(post(http))
    await until(lambda: upstream.requests)
    request.cancel()
    await asyncio.wait([request])
    await assert_no_body_is_held(http)


async def test_cache_is_off_by_default(upstream):
    transport = httpx.ASGITransport(create_app(GatewaySettings(), httpx.MockTransport(upstream)))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=HEADERS) as client:
        assert (await post(client)).status_code == 404
        assert "gateway_cache" not in (await client.get("/gateway/metrics")).text
