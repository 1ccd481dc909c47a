"""Routes of other servers: summaries and labels, with a fake TorchServe."""

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
from tests.unit.gateway.app_responses import SETTINGS, is_error
from tests.unit.gateway.torchserve_stub import TorchServeStub
from torchserve_models.gateway.app import create_app
from torchserve_models.gateway.request_bodies.pixel_parser import PixelParser
from torchserve_models.gateway.settings import GatewaySettings

NO_ROOM = Refused(503, "ServiceUnavailableException", NO_WORKER.format("images"))

LATE = Refused(503, "Overloaded", "the server's time limit for this batch of requests has passed")

FAILED = Refused(503, "InternalServerException", "Prediction failed")


def predictions(served):
    return [path for method, path in served.received if method == "POST"]


async def test_alias_of_a_parameter_is_translated(http, served):
    response = await http.post("/predict/text_summarize?model=t5&min=10", json={"text": "Hello"})
    assert response.json() == [{"summary_text": 'Hello {"min_length": 10}'}]
    assert predictions(served) == ["/predictions/texts"]


async def test_parameters_of_the_model_are_accepted(http, served):
    route = "/predict/text_summarize?strategy=best&truncation=true&length_penalty=0.5"
    response = await http.post(route, json={"text": "é" * 200})
    (summary,) = response.json()
    assert summary["summary_text"].endswith('{"length_penalty": 0.5, "strategy": "best", "truncation": true}')
    assert summary["truncated"] is True
    assert predictions(served) == ["/predictions/texts"]


async def test_several_texts_are_summarized(http):
    response = await http.post("/predict/text_summarize", json={"text": ["a", "b"]})
    assert [item["summary_text"] for item in response.json()] == ["a {}", "b {}"]


@pytest.mark.parametrize(
    ("query", "body", "error_type"),
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
async def test_invalid_text_request_is_rejected(http, query, body, error_type):
    assert is_error(await http.post(f"/predict/text_summarize{query}", content=body), 400, error_type)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_compressed_body_is_decompressed(http, pack):
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
        response = await http.post(route, content=bomb, headers=headers)
        assert response.status_code in (400, 413)
        response = await http.post(route, content=b"{}", headers={"content-encoding": "br"})
        assert "'br' is not supported" in response.json()["message"]
    assert is_error(
        await http.post("/predict/text_summarize", content=bomb, headers=headers), 413, "TooLarge"
    )


@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-16", "Shift_JIS"])
async def test_charset_of_the_content_type_is_used(http, charset):
    text = "雨が降った" if charset == "Shift_JIS" else "Il pleut à Orléans"
    body = json.dumps({"text": text}, ensure_ascii=False).encode(charset)
    headers = {"content-type": f"application/json; charset={charset}"}
    response = await http.post("/predict/text_summarize", content=body, headers=headers)
    assert response.json() == [{"summary_text": f"{text} {{}}"}]
    if charset != "utf-16":
        response = await http.post("/predict/text_summarize", content=body)
        assert is_error(response, 400, "InvalidRequest")
        assert "not UTF-8" in response.json()["message"]


@pytest.mark.parametrize("body", [b"", b" ", b"a story", b"text=a", b"\xff\xd8\xff\xe0"])
@pytest.mark.parametrize(("route", "field"), [("/predict/text_summarize", "text"), ("/model", "img")])
async def test_body_that_is_not_json_is_rejected_with_a_hint(http, route, field, body):
    response = await http.post(route, content=body)
    assert is_error(response, 400, "InvalidRequest")
    assert f"a JSON object with the one field '{field}'" in response.json()["message"]


@pytest.mark.parametrize(
    ("charset", "codec"),
    [("", "utf-16"), ("; charset=utf-16le", "utf-16-le"), ("; charset=Shift_JIS", "shift_jis")],
)
async def test_declared_charset_gives_the_same_summary(http, charset, codec):
    body = '{"text": "橋が開く。", "parameters": null}'.encode(codec)
    headers = {"Content-Type": f"application/json{charset}"}
    response = await http.post("/predict/text_summarize?model=t5", content=body, headers=headers)
    expected = await http.post("/predict/text_summarize?model=t5", json={"text": "橋が開く。"})
    assert (response.status_code, response.json()) == (200, expected.json())
    headers = {"Content-Type": "application/json; charset=utf-16le"}
    response = await http.post("/predict/text_summarize", content=b'{"text": "a"}', headers=headers)
    assert is_error(response, 400, "InvalidText")


async def test_pixels_reach_torchserve_unchanged(http, served):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    files = []

    def record(request):
        if request.method == "POST":
            files.append(request.content)
        return TorchServeStub.handle_rest(served, request)

    app = create_app(SETTINGS, httpx.MockTransport(record))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        response = await client.post("/model", content=json.dumps({"img": pixels.tolist()}))
    assert [item["score"] for item in response.json()] == [0.5, 0.25, 0.125]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(files[0]))), pixels)
    assert len((await http.post("/model?top_k=1", json={"img": pixels.tolist()})).json()) == 1


@pytest.mark.parametrize("pixels", [[], 7, [[[1, 2]], [[1]]], [[[256, 0, 0]]], [[0.0, 1.0]]])
async def test_invalid_pixels_are_rejected(http, pixels):
    assert is_error(await http.post("/model", json={"img": pixels}), 400, "InvalidImage")


async def test_long_string_among_pixels_does_not_use_more_memory(http):
    tracemalloc.start()
    try:
        response = await http.post("/model", json={"img": [[["x" * 10_000, 0, 0], *[[1, 2, 3]] * 1000]]})
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert is_error(response, 400, "InvalidImage")


async def test_images_are_parsed_one_at_a_time(http, monkeypatch):
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
    responses = await asyncio.gather(*(http.post("/model", json={"img": [[[1, 2, 3]]]}) for _ in range(8)))
    assert {response.status_code for response in responses} == {200}
    assert most == 1


async def test_too_large_body_is_rejected(http):
    assert is_error(await http.post("/model", content=b" " * (2**20 + 1)), 413, "TooLarge")


@pytest.mark.parametrize("failure", [NO_ROOM, LATE])
async def test_full_queue_is_429_with_a_worker_and_503_without(http, served, failure):
    served.failing["images"] = failure
    response = await http.post("/model", json={"img": [[[1, 2, 3]]]})
    assert is_error(response, 429, "Overloaded")
    assert response.headers["retry-after"] == "1"
    served.status = "UNLOADING"
    # The previous application caches its diagnosis for a second.
    app = create_app(SETTINGS, httpx.MockTransport(served.handle_rest))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        response = await client.post("/model", json={"img": [[[1, 2, 3]]]})
    assert is_error(response, 503, "NoWorker")
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("failure", "code", "error_type"),
    [
        (FAILED, 500, "InternalError"),
        (Refused(413, "ImageTooLarge", "too many pixels"), 413, "ImageTooLarge"),
        (Refused(500, "InternalServerException", "Worker died."), 500, "InternalServerException"),
        (httpx.ConnectError("refused"), 503, "Unavailable"),
        (httpx.ReadTimeout("late"), 504, "Timeout"),
    ],
)
async def test_errors_other_than_503_are_returned_unchanged(http, served, failure, code, error_type):
    served.failing["images"] = failure
    assert is_error(await http.post("/model", json={"img": [[[1, 2, 3]]]}), code, error_type)


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
async def test_error_messages_use_the_aliases_of_parameters(http, served, query, message):
    model_message = message.replace("max,", "max_length,").replace("min,", "min_length,")
    model_message = re.sub(r"'(min|max)'", r"'\1_length'", model_message)
    served.failing["texts"] = Refused(400, "InvalidParameter", model_message)
    response = await http.post(f"/predict/text_summarize?{query}", json={"text": "a"})
    assert is_error(response, 400, "InvalidParameter")
    assert response.json()["message"] == message


async def test_pixels_use_the_model_of_their_route(served):
    settings = GatewaySettings(image_model="absent", route_models={"/model": "images"})
    app = create_app(settings, httpx.MockTransport(served.handle_rest))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        assert (await client.post("/model", json={"img": [[1, 2]]})).status_code == 200
    assert predictions(served) == ["/predictions/images"]


async def test_text_body_has_a_separate_limit(served):
    settings = GatewaySettings(image_model="images", summarizers={"t5": "texts"}, max_text_body_bytes=1000)
    app = create_app(settings, httpx.MockTransport(served.handle_rest))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        response = await client.post("/predict/text_summarize", json={"text": "a" * 1000})
        assert is_error(response, 413, "TooLarge")
        assert (await client.post("/model", json={"img": [[[1, 2, 3]] * 300]})).status_code == 200


async def test_structure_of_a_text_body_is_bounded(http):
    response = await http.post("/predict/text_summarize", json={"text": [[]] * 20_000})
    assert is_error(response, 400, "InvalidRequest")
    assert "10000 lists, objects and strings" in response.json()["message"]
    assert (await http.post("/predict/text_summarize", json={"text": "[],{}" * 20_000})).status_code == 200
