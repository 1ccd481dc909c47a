"""Metadata of the server and of its models."""

import httpx

from tests.unit.gateway.app_responses import SETTINGS, is_error
from tests.unit.gateway.torchserve_stub import INPUT
from torchserve_models.gateway.app import create_app


async def test_busy_model_has_no_metadata(served):
    def busy(request):
        if "customized" in request.url.params:
            raise httpx.ReadTimeout("busy")
        return served.handle_rest(request)

    app = create_app(SETTINGS, httpx.MockTransport(busy))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        assert is_error(await client.get("/v2/models/images"), 504, "Timeout")
        assert "/predictions/images" in (await client.get("/openapi.json")).json()["paths"]


async def test_model_metadata_is_returned(http):
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


async def test_server_metadata_is_returned(http, served):
    metadata = (await http.get("/v2")).json()
    assert (metadata["name"], metadata["version"]) == ("Torchserve", "0.12.0")


async def test_metadata_without_torchserve_is_an_error():
    def refuse_connection(request):
        raise httpx.ConnectError("refused")

    app = create_app(SETTINGS, httpx.MockTransport(refuse_connection))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        assert is_error(await client.get("/v2"), 503, "Unavailable")
        assert is_error(await client.get("/v2/models/images"), 503, "Unavailable")
        assert is_error(await client.get("/openapi.json"), 503, "Unavailable")
