"""Routes of the whole application: documentation, trailing slashes, and unknown routes."""

import pytest

from tests.unit.gateway.app_responses import is_error


async def test_documentation_is_served(http):
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
async def test_trailing_slash_is_ignored(http, path):
    without, with_slash = await http.get(path), await http.get(f"{path}/")
    assert with_slash.status_code == without.status_code
    assert without.status_code in ((404,) if path == "/nothing" else (200, 429, 503))
    assert with_slash.headers["content-type"] == without.headers["content-type"]
    if path not in ("/docs", "/gateway/metrics"):
        assert with_slash.content == without.content


async def test_trailing_slash_of_a_route_with_a_body_is_ignored(http):
    for path, body in (("/model", {"img": [[1, 2]]}), ("/predict/text_summarize", {"text": "a"})):
        response = await http.post(f"{path}/?top_k=1" if path == "/model" else f"{path}/?min=10", json=body)
        assert response.status_code == 200
    assert response.json() == [{"summary_text": 'a {"min_length": 10}'}]
    assert is_error(await http.get("/model/"), 405, "NotAllowed")


async def test_root_route_describes_the_server(http):
    body = (await http.get("/")).json()
    assert (body["name"], body["docs"], body["ready"]) == ("torchserve-models", "/docs", False)
    assert body["reason"]


async def test_unknown_route_and_method_have_the_error_format(http):
    response = await http.get("/nothing")
    assert is_error(response, 404, "NotFound")
    assert response.json()["message"] == "unknown route; /docs lists the routes"
    response = await http.get("/model")
    assert is_error(response, 405, "NotAllowed")
    assert response.json()["message"].endswith("allowed: POST")
    assert "GET" in (await http.post("/v2")).json()["message"]
    assert response.headers["allow"] == "POST"
