"""Routes that only nginx calls: the reason of a 503 response, and waiting for a worker."""

import asyncio

import httpx
import pytest

from tests.unit.gateway.app_responses import is_error
from torchserve_models.gateway.app import create_app
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.upstream.unavailable_diagnosis import HANDLER_FAILED


async def test_wait_route_ends_with_the_request_deadline(http, monkeypatch):
    monkeypatch.setattr(
        "torchserve_models.gateway.upstream.retry_transport.RecoveryWaiter.until_ready",
        lambda *_: asyncio.sleep(60),
    )
    response = await http.get("/wait/images/1.0", headers={"X-Request-Timeout": "0.2"})
    assert is_error(response, 504, "DeadlineExceeded")


async def test_refusals_route_returns_the_reason_of_a_503(http, served):
    response = await http.get("/refusals/images/?length=250")
    assert is_error(response, 429, "Overloaded")
    assert response.headers["retry-after"] == "1"
    assert is_error(await http.get("/refusals/images/2.0?length=250"), 503, "NoWorker") is True
    assert is_error(await http.get("/refusals/absent/"), 404, "ModelNotFoundException")
    assert is_error(await http.get(f"/refusals/images/?length={len(HANDLER_FAILED)}"), 500, "InternalError")


@pytest.mark.parametrize(
    ("failure", "code", "error_type"),
    [(httpx.ConnectError("refused"), 503, "Unavailable"), (httpx.ReadTimeout("busy"), 429, "Overloaded")],
)
async def test_refusals_route_without_management_api(http, served, failure, code, error_type):
    served.describing = failure
    assert is_error(await http.get("/refusals/images/"), code, error_type)


async def test_concurrent_503_responses_share_one_diagnosis(http, served):
    responses = await asyncio.gather(*(http.get("/refusals/images/1.0") for _ in range(200)))
    assert {response.status_code for response in responses} == {429}
    assert len(served.received) == 1


async def test_internal_routes_require_the_key(served):
    settings = GatewaySettings(image_model="images", key="secret")
    app = create_app(settings, httpx.MockTransport(served.handle_rest))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        path = "/refusals/images/?length=250"
        assert is_error(await client.get(path), 404, "NotFound")
        assert is_error(await client.get(path, headers={"X-Gateway-Key": "Secret"}), 404, "NotFound")
        assert served.received == []
        assert is_error(await client.get(path, headers={"X-Gateway-Key": "secret"}), 429, "Overloaded")
