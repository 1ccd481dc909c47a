"""Options of the gateway in front of a real TorchServe: CORS, and models of the compatibility routes."""

import gzip
import io
import json
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.server.fronted import IMAGE, LABEL, error, in_front_of, needs_nginx
from torchserve_models.gateway.settings import GatewaySettings
from training.reports import draw_example

pytestmark = needs_nginx
TEXT, SUMMARY = draw_example(2024, 3)
SITE = "https://app.example"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type,x-request-id",
}
ROUTES = (
    "/predictions/resnet-50",
    "/predict",
    "/v2/models/resnet-50/infer",
    "/predict/text_summarize",
    "/model",
)


@contextmanager
def asking(server, settings=None, **options):
    front = in_front_of(server.endpoints, settings, **options)
    with front as running, httpx.Client(base_url=running.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def http(server):
    with asking(server, cors_origins=(SITE, "http://localhost:3000"), open_management=True) as client:
        yield client


def allowed(answer):
    return answer.headers.get("access-control-allow-origin")


@pytest.mark.parametrize("path", [*ROUTES, "/predictions/resnet-50/", "/v2/models/resnet-50"])
@pytest.mark.parametrize("origin", [SITE, "http://localhost:3000"])
def test_preflight_request_is_answered(http, path, origin):
    answer = http.options(path, headers=PREFLIGHT | {"origin": origin})
    assert (answer.status_code, allowed(answer), answer.content) == (204, origin, b"")
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "content-type,x-request-id"
    assert "access-control-allow-credentials" not in answer.headers


def test_responses_and_errors_are_readable_across_origins(http):
    headers = {"origin": SITE, "content-type": "image/jpeg"}
    answers = [
        http.post("/predictions/resnet-50", content=IMAGE, headers=headers),
        http.post("/predict", files={"image": IMAGE}, headers={"origin": SITE}),
        http.post("/model", json={"img": [[1, 2]]}, headers={"origin": SITE}),
        http.get("/v2", headers={"origin": SITE}),
        http.post("/predictions/resnet-50", content=b"x", headers=headers),
        http.get("/predictions/resnet-50", headers={"origin": SITE}),
        http.get("/nothing", headers={"origin": SITE}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 400, 405, 404]
    assert answers[0].json()[0]["label"] == LABEL
    for answer in answers:
        assert answer.headers.get_list("access-control-allow-origin") == [SITE]
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"
    without = http.get("/v2")
    assert (allowed(without), without.headers["vary"]) == (None, "Origin")  # for caches


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.evil", "null", f"{SITE}:444", ""]
)
def test_other_origins_are_not_allowed(http, origin):
    assert error(http.options("/predict", headers=PREFLIGHT | {"origin": origin}), 405, "NotAllowed")
    answer = http.post("/predictions/resnet-50", content=IMAGE, headers={"origin": origin})
    assert (answer.status_code, allowed(answer)) == (200, None)


@pytest.mark.parametrize("path", ["/models", "/models/resnet-50", "/models/", "/metrics", "/edge/metrics"])
def test_management_is_closed_to_all_origins(http, path):
    answer = http.options(path, headers=PREFLIGHT | {"origin": SITE})
    assert (answer.status_code, allowed(answer)) == (403, None)
    answer = http.get(path, headers={"origin": SITE})
    assert (answer.status_code, allowed(answer)) == (403, None)
    assert http.get(path).status_code == 200


def test_cors_is_off_by_default_and_star_allows_all_origins(server):
    with asking(server) as client:
        error(client.options("/predict", headers=PREFLIGHT | {"origin": SITE}), 405, "NotAllowed")
        answer = client.post("/predictions/resnet-50", content=IMAGE, headers={"origin": SITE})
        assert (answer.status_code, allowed(answer)) == (200, None)
    with asking(server, cors_origins=("*",)) as client:
        for origin in (SITE, "null"):
            assert allowed(client.options("/predict", headers=PREFLIGHT | {"origin": origin})) == origin
            assert allowed(client.get("/v2", headers={"origin": origin})) == origin


SENT = {
    "/predict": {"files": {"image": IMAGE}},
    "/predict/image_classes": {"files": {"file": IMAGE}},
    "/model": {"json": {"img": [[1, 2]]}},
}


def test_compressed_bodies_are_decompressed(http):
    pixels = gzip.compress(
        json.dumps({"img": np.asarray(Image.open(io.BytesIO(IMAGE)).convert("RGB")).tolist()}).encode()
    )
    answer = http.post("/model/?top_k=1", content=pixels, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()[0]["label"]) == (200, LABEL)
    body = gzip.compress(json.dumps({"text": TEXT}).encode())
    answer = http.post("/predict/text_summarize", content=body, headers={"content-encoding": "gzip"})
    assert answer.json() == [{"summary_text": SUMMARY}]
    answer = http.post("/predict/text_summarize", content=b"text=a", headers={"content-encoding": "gzip"})
    assert "not valid gzip" in error(answer, 400, "InvalidRequest")


@pytest.mark.parametrize("route", SENT)
def test_compatibility_routes_use_separate_models(server, route):
    with asking(server, GatewaySettings(route_models={route: "no-such-model"})) as client:
        answers = {path: client.post(path, **send) for path, send in SENT.items()}
        assert route not in client.get("/openapi.json").json()["paths"]
    for path, answer in answers.items():
        assert answer.status_code == (404 if path == route else 200), path
    assert "no-such-model" in answers[route].json()["message"]
