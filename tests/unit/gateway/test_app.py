"""The gateway's own answers, with a pretended TorchServe behind it."""

import asyncio
import gzip
import io
import json
import re
import time
import tracemalloc
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.unit.client.fake_torchserve import NO_WORKER, Refused
from tests.unit.gateway.behind import INPUT, Served
from torchserve_models.gateway.app import create
from torchserve_models.gateway.pixels import PixelParser
from torchserve_models.gateway.settings import Settings
from torchserve_models.gateway.unavailable import HANDLER_FAILED

NO_ROOM = Refused(503, "ServiceUnavailableException", NO_WORKER.format("images"))
LATE = Refused(503, "Overloaded", "the server's time for this batch of requests is over")
FAILED = Refused(503, "InternalServerException", "Prediction failed")
SETTINGS = Settings(image_model="images", summarizers={"t5": "texts", "bart": "other"}, max_body=2**20)


@pytest.fixture
def served():
    return Served()


@pytest.fixture
async def http(served):
    app = create(SETTINGS, httpx.MockTransport(served.rest))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


def is_error(response, code, kind):
    body = response.json()
    assert (response.status_code, body["code"], body["type"]) == (code, code, kind)
    assert body["error"] == body["message"]
    return True


def predictions(served):
    return [path for method, path in served.seen if method == "POST"]


async def test_a_text_with_their_names_of_parameters(http, served):
    response = await http.post("/predict/text_summarize?model=t5&min=10", json={"text": "Hello"})
    assert response.json() == [{"summary_text": 'Hello {"min_length": 10}'}]
    assert predictions(served) == ["/predictions/texts"]


async def test_our_own_parameters(http, served):
    route = "/predict/text_summarize?strategy=best&truncation=true&length_penalty=0.5"
    response = await http.post(route, json={"text": "é" * 200})
    (summary,) = response.json()
    assert summary["summary_text"].endswith('{"length_penalty": 0.5, "strategy": "best", "truncation": true}')
    assert summary["truncated"] is True
    assert predictions(served) == ["/predictions/texts"]


async def test_several_texts(http):
    response = await http.post("/predict/text_summarize", json={"text": ["a", "b"]})
    assert [each["summary_text"] for each in response.json()] == ["a {}", "b {}"]


@pytest.mark.parametrize(
    ("query", "body", "kind"),
    [
        ("?model=gpt", b'{"text": "a"}', "InvalidParameter"),
        ("?min=many", b'{"text": "a"}', "InvalidParameter"),
        ("?color=red", b'{"text": "a"}', "InvalidParameter"),
        ("?version=2.0", b'{"text": "a"}', "InvalidParameter"),
        ("?text=a", b'{"text": "a"}', "InvalidParameter"),
        ("?timeout=5", b'{"text": "a"}', "InvalidParameter"),
        ("?headers=a", b'{"text": "a"}', "InvalidParameter"),
        ("?model=t5&model=bart", b'{"text": "a"}', "InvalidParameter"),
        ("", b'{"text": []}', "InvalidRequest"),
        ("", b'{"text": "a", "min": 5}', "InvalidRequest"),
        ("?min=1&min=2", b'{"text": "a"}', "InvalidParameter"),
        ("?min=1&min_length=2", b'{"text": "a"}', "InvalidParameter"),
        ("?max_length=9&max=9", b'{"text": "a"}', "InvalidParameter"),
        ("", b'{"inputs": "a"}', "InvalidRequest"),
        ("", b'{"text": 7}', "InvalidRequest"),
        ("", b'{"text": "a", "more": 1}', "InvalidRequest"),
        ("", b"[" * 100_000, "InvalidRequest"),
        ("", b"text", "InvalidRequest"),
        ("", b"", "InvalidRequest"),
    ],
)
async def test_a_wrong_text_request_is_named(http, query, body, kind):
    """Case 17."""
    assert is_error(await http.post(f"/predict/text_summarize{query}", content=body), 400, kind)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_compressed_bodies(http, pack):
    encoding = "gzip" if pack is gzip.compress else "deflate"
    headers = {"content-encoding": encoding}
    response = await http.post("/predict/text_summarize", content=pack(b'{"text": "Hello"}'), headers=headers)
    assert response.json() == [{"summary_text": "Hello {}"}]
    sent = {"content": pack(b'{"img": [[1, 2]]}'), "headers": headers}
    assert (await http.post("/model", **sent)).json() == (
        await http.post("/model", json={"img": [[1, 2]]})
    ).json()
    bomb = pack(b'{"text": "' + bytes(2**23) + b'"}')
    for route in ("/predict/text_summarize", "/model"):
        answer = await http.post(route, content=bomb, headers=headers)
        assert answer.status_code in (400, 413)
        answer = await http.post(route, content=b"{}", headers={"content-encoding": "br"})
        assert "'br' is not supported" in answer.json()["message"]
    assert is_error(
        await http.post("/predict/text_summarize", content=bomb, headers=headers), 413, "TooLarge"
    )


@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-16", "Shift_JIS"])
async def test_a_text_in_a_named_charset(http, charset):
    text = "雨が降った" if charset == "Shift_JIS" else "Il pleut à Orléans"
    body = json.dumps({"text": text}, ensure_ascii=False).encode(charset)
    headers = {"content-type": f"application/json; charset={charset}"}
    response = await http.post("/predict/text_summarize", content=body, headers=headers)
    assert response.json() == [{"summary_text": f"{text} {{}}"}]
    if charset != "utf-16":
        answer = await http.post("/predict/text_summarize", content=body)
        assert is_error(answer, 400, "InvalidRequest")
        assert "not UTF-8" in answer.json()["message"]


@pytest.mark.parametrize("body", [b"", b" ", b"a story", b"text=a", b"\xff\xd8\xff\xe0"])
@pytest.mark.parametrize(("route", "field"), [("/predict/text_summarize", "text"), ("/model", "img")])
async def test_what_is_no_json_is_told_what_to_send(http, route, field, body):
    answer = await http.post(route, content=body)
    assert is_error(answer, 400, "InvalidRequest")
    assert f"a JSON object with the one field '{field}'" in answer.json()["message"]


@pytest.mark.parametrize(
    ("charset", "codec"),
    [("", "utf-16"), ("; charset=utf-16le", "utf-16-le"), ("; charset=Shift_JIS", "shift_jis")],
)
async def test_a_text_in_its_declared_charset(http, charset, codec):
    """Case 5 on the gateway's own route; null means absent."""
    body = '{"text": "橋が開く。", "parameters": null}'.encode(codec)
    headers = {"Content-Type": f"application/json{charset}"}
    response = await http.post("/predict/text_summarize?model=t5", content=body, headers=headers)
    expected = await http.post("/predict/text_summarize?model=t5", json={"text": "橋が開く。"})
    assert (response.status_code, response.json()) == (200, expected.json())
    headers = {"Content-Type": "application/json; charset=utf-16le"}
    response = await http.post("/predict/text_summarize", content=b'{"text": "a"}', headers=headers)
    assert is_error(response, 400, "InvalidText")


async def test_pixels_arrive_as_they_were_sent(http, served):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    files = []

    def keep(request):
        if request.method == "POST":
            files.append(request.content)
        return Served.rest(served, request)

    app = create(SETTINGS, httpx.MockTransport(keep))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        response = await client.post("/model", content=json.dumps({"img": pixels.tolist()}))
    assert [each["score"] for each in response.json()] == [0.5, 0.25, 0.125]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(files[0]))), pixels)
    assert len((await http.post("/model?top_k=1", json={"img": pixels.tolist()})).json()) == 1


@pytest.mark.parametrize("pixels", [[], 7, [[[1, 2]], [[1]]], [[[256, 0, 0]]], [[0.0, 1.0]]])
async def test_what_are_no_pixels(http, pixels):
    assert is_error(await http.post("/model", json={"img": pixels}), 400, "InvalidImage")


async def test_one_long_string_does_not_make_the_others_long(http):
    tracemalloc.start()
    try:
        response = await http.post("/model", json={"img": [[["x" * 10_000, 0, 0], *[[1, 2, 3]] * 1000]]})
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert is_error(response, 400, "InvalidImage")


async def test_one_image_is_parsed_at_a_time(http, monkeypatch):
    at_once, most = 0, 0

    original = PixelParser.finish

    def parse(parser):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.01)
        at_once -= 1
        return original(parser)

    monkeypatch.setattr(PixelParser, "finish", parse)
    answers = await asyncio.gather(*(http.post("/model", json={"img": [[[1, 2, 3]]]}) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert most == 1


async def test_a_body_over_the_limit(http):
    assert is_error(await http.post("/model", content=b" " * (2**20 + 1)), 413, "TooLarge")


@pytest.mark.parametrize("failure", [NO_ROOM, LATE])
async def test_a_full_queue_is_429_while_there_is_a_worker_and_503_when_there_is_none(http, served, failure):
    served.failing["images"] = failure
    response = await http.post("/model", json={"img": [[[1, 2, 3]]]})
    assert is_error(response, 429, "Overloaded")
    assert response.headers["retry-after"] == "1"
    served.status = "UNLOADING"
    app = create(SETTINGS, httpx.MockTransport(served.rest))  # what was found out before is kept for a second
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        response = await client.post("/model", json={"img": [[[1, 2, 3]]]})
    assert is_error(response, 503, "NoWorker")
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("failure", "code", "kind"),
    [
        (FAILED, 500, "InternalError"),
        (Refused(413, "ImageTooLarge", "too many pixels"), 413, "ImageTooLarge"),
        (Refused(500, "InternalServerException", "Worker died."), 500, "InternalServerException"),
        (httpx.ConnectError("refused"), 503, "Unavailable"),
        (httpx.ReadTimeout("late"), 504, "Timeout"),
    ],
)
async def test_other_errors_stay_what_they_are(http, served, failure, code, kind):
    served.failing["images"] = failure
    assert is_error(await http.post("/model", json={"img": [[[1, 2, 3]]]}), code, kind)


async def test_nginx_does_not_wait_for_torchserve_beyond_a_requests_deadline(http, monkeypatch):
    monkeypatch.setattr("torchserve_models.gateway.waiting.Waiting.until_ready", lambda *_: asyncio.sleep(60))
    response = await http.get("/wait/images/1.0", headers={"X-Request-Timeout": "0.2"})
    assert is_error(response, 504, "DeadlineExceeded")


async def test_nginx_is_told_why_torchserve_refused(http, served):
    response = await http.get("/refusals/images/?length=250")
    assert is_error(response, 429, "Overloaded")
    assert response.headers["retry-after"] == "1"
    assert is_error(await http.get("/refusals/images/2.0?length=250"), 503, "NoWorker") is True
    assert is_error(await http.get("/refusals/absent/"), 404, "ModelNotFoundException")
    assert is_error(await http.get(f"/refusals/images/?length={len(HANDLER_FAILED)}"), 500, "InternalError")


@pytest.mark.parametrize(
    ("failure", "code", "kind"),
    [(httpx.ConnectError("refused"), 503, "Unavailable"), (httpx.ReadTimeout("busy"), 429, "Overloaded")],
)
async def test_without_management_it_says_what_it_can(http, served, failure, code, kind):
    served.describing = failure
    assert is_error(await http.get("/refusals/images/"), code, kind)


async def test_two_hundred_refusals_ask_once(http, served):
    answers = await asyncio.gather(*(http.get("/refusals/images/1.0") for _ in range(200)))
    assert {answer.status_code for answer in answers} == {429}
    assert len(served.seen) == 1


async def test_a_busy_model_has_no_metadata_yet(served):
    def busy(request):
        if "customized" in request.url.params:
            raise httpx.ReadTimeout("busy")
        return served.rest(request)

    app = create(SETTINGS, httpx.MockTransport(busy))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        assert is_error(await client.get("/v2/models/images"), 504, "Timeout")
        assert "/predictions/images" in (await client.get("/openapi.json")).json()["paths"]


async def test_metadata(http):
    expected = {
        "name": "images",
        "versions": ["1.0", "2.0"],
        "platform": "torchserve",
        "inputs": [INPUT],
        "outputs": [],
        "parameters": [],
    }
    assert (await http.get("/v2/models/images")).json() == expected
    assert (await http.get("/v2/models/images/versions/1.0")).json() == expected
    assert is_error(await http.get("/v2/models/images/versions/7"), 404, "ModelNotFound")
    assert is_error(await http.get("/v2/models/absent"), 404, "ModelNotFoundException")


async def test_server_metadata(http, served):
    said = (await http.get("/v2")).json()
    assert (said["name"], said["version"]) == ("Torchserve", "0.12.0")


async def test_without_torchserve_there_is_no_metadata():
    def nobody(request):
        raise httpx.ConnectError("refused")

    app = create(SETTINGS, httpx.MockTransport(nobody))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        assert is_error(await client.get("/v2"), 503, "Unavailable")
        assert is_error(await client.get("/v2/models/images"), 503, "Unavailable")
        assert is_error(await client.get("/openapi.json"), 503, "Unavailable")


async def test_the_documents_are_there(http):
    assert (await http.get("/openapi.json")).json()["openapi"].startswith("3.1")
    assert "swagger" in (await http.get("/docs")).text.lower()


@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz", "/readyz/images", "/readyz/images/1.0", "/ping", "/v2", "/v2/health/live"]
    + ["/v2/health/ready", "/v2/models/images", "/v2/models/images/ready", "/openapi.json", "/docs"]
    + [
        "/v2/models/images/versions/1.0",
        "/v2/models/images/versions/1.0/ready",
        "/docs/page.js",
        "/nothing",
    ]
    + ["/gateway/metrics", "/refusals/images", "/refusals/images/2.0"],
)
async def test_a_slash_at_the_end_changes_nothing(http, path):
    """Case 9."""
    without, with_slash = await http.get(path), await http.get(f"{path}/")
    assert with_slash.status_code == without.status_code
    assert without.status_code in ((404,) if path == "/nothing" else (200, 429, 503))
    assert with_slash.headers["content-type"] == without.headers["content-type"]
    if path not in ("/docs", "/gateway/metrics"):
        assert with_slash.content == without.content


async def test_a_slash_at_the_end_of_a_route_with_a_body(http):
    """Case 9."""
    for path, body in (("/model", {"img": [[1, 2]]}), ("/predict/text_summarize", {"text": "a"})):
        response = await http.post(f"{path}/?top_k=1" if path == "/model" else f"{path}/?min=10", json=body)
        assert response.status_code == 200
    assert response.json() == [{"summary_text": 'a {"min_length": 10}'}]
    assert is_error(await http.get("/model/"), 405, "NotAllowed")


async def test_the_root_says_what_this_is(http):
    """Case 19."""
    body = (await http.get("/")).json()
    assert (body["name"], body["docs"], body["ready"]) == ("torchserve-models", "/docs", False)
    assert body["reason"]


async def test_wrong_routes_and_methods_have_the_error_object(http):
    response = await http.get("/nothing")
    assert is_error(response, 404, "NotFound")
    assert response.json()["message"] == "there is no such route; /docs lists them"
    response = await http.get("/model")
    assert is_error(response, 405, "NotAllowed")
    assert response.json()["message"].endswith("this route takes POST")
    assert "GET" in (await http.post("/v2")).json()["message"]
    assert response.headers["allow"] == "POST"


async def test_the_inner_route_needs_the_key(served):
    settings = Settings(image_model="images", key="secret")
    app = create(settings, httpx.MockTransport(served.rest))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        path = "/refusals/images/?length=250"
        assert is_error(await client.get(path), 404, "NotFound")
        assert is_error(await client.get(path, headers={"X-Gateway-Key": "Secret"}), 404, "NotFound")
        assert served.seen == []
        assert is_error(await client.get(path, headers={"X-Gateway-Key": "secret"}), 429, "Overloaded")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("min=many", "'min' must be an integer, not 'many'"),
        ("max=many", "'max' must be an integer, not 'many'"),
        ("min_length=many", "'min_length' must be an integer, not 'many'"),
        ("max=9&min_length=many", "'min_length' must be an integer, not 'many'"),
        ("max=9&color=1", "unknown parameter 'color'; this model takes: max, min, min_new_tokens"),
    ],
)
async def test_errors_speak_of_parameters_as_the_client_named_them(http, served, query, message):
    """Case 20."""
    ours = message.replace("max,", "max_length,").replace("min,", "min_length,")
    ours = re.sub(r"'(min|max)'", r"'\1_length'", ours)
    served.failing["texts"] = Refused(400, "InvalidParameter", ours)
    response = await http.post(f"/predict/text_summarize?{query}", json={"text": "a"})
    assert is_error(response, 400, "InvalidParameter")
    assert response.json()["message"] == message


async def test_pixels_ask_the_model_of_their_route(served):
    """Case 20."""
    settings = Settings(image_model="absent", route_models={"/model": "images"})
    app = create(settings, httpx.MockTransport(served.rest))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        assert (await client.post("/model", json={"img": [[1, 2]]})).status_code == 200
    assert predictions(served) == ["/predictions/images"]


async def test_a_text_has_a_limit_of_its_own(served):
    settings = Settings(image_model="images", summarizers={"t5": "texts"}, max_text_body=1000)
    app = create(settings, httpx.MockTransport(served.rest))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        response = await client.post("/predict/text_summarize", json={"text": "a" * 1000})
        assert is_error(response, 413, "TooLarge")
        assert (await client.post("/model", json={"img": [[[1, 2, 3]] * 300]})).status_code == 200


async def test_the_structure_of_a_text_is_bounded(http):
    response = await http.post("/predict/text_summarize", json={"text": [[]] * 20_000})
    assert is_error(response, 400, "InvalidRequest")
    assert "10000 lists, objects and strings" in response.json()["message"]
    assert (await http.post("/predict/text_summarize", json={"text": "[],{}" * 20_000})).status_code == 200
