"""Readiness during a shutdown of the gateway."""

import httpx
import pytest

from tests.unit.gateway.torchserve_stub import TorchServeStub
from torchserve_models.client._stubs import open_inference_grpc_pb2 as messages
from torchserve_models.gateway.app import create_app
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.shutdown import ShutdownFlag
from torchserve_models.gateway.upstream.retry_transport import RecoveryWaiter

READINESS = ("/readyz", "/readyz/images", "/readyz/", "/v2/health/ready", "/v2/models/images/ready", "/ping",
             "/v2/models/images/versions/1.0/ready", "/v1/models/images")  # fmt: skip


@pytest.mark.parametrize("path", READINESS)
async def test_readiness_is_false_after_the_shutdown_began(path):
    shutdown = ShutdownFlag()
    app = create_app(
        GatewaySettings(image_model="images"), httpx.MockTransport(TorchServeStub().handle_rest), shutdown
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        assert "shutting down" not in (await http.get(path)).text
        shutdown.begin()
        response = await http.get(path)
        assert response.status_code == 503
        assert response.json()["reason"] == "the gateway is shutting down"
        assert (await http.get("/livez")).status_code == 200
        assert (await http.post("/model", json={"img": [[[1, 2, 3]]]})).status_code == 200


async def test_grpc_readiness_is_false_but_lost_requests_are_retried_during_a_shutdown(monkeypatch):
    """Run the application's lifespan, so that it polls TorchServe's readiness."""
    pollers = []
    monkeypatch.setattr(
        "torchserve_models.gateway.app.RecoveryWaiter",
        lambda readiness: pollers.append(readiness) or RecoveryWaiter(readiness),
    )
    shutdown = ShutdownFlag()
    app = create_app(
        GatewaySettings(image_model="images"), httpx.MockTransport(TorchServeStub().handle_rest), shutdown
    )

    async def is_ready(http, method, request):
        content = request.SerializeToString()
        frame = b"\0" + len(content).to_bytes(4, "big") + content
        response = await http.post(f"/inference.GRPCInferenceService/{method}", content=frame)
        return getattr(messages, f"{method}Response").FromString(response.content[5:]).ready

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http,
    ):
        for ready in (True, False):
            assert await is_ready(http, "ServerReady", messages.ServerReadyRequest()) is ready
            assert await is_ready(http, "ModelReady", messages.ModelReadyRequest(name="images")) is ready
            assert f"gateway_ready {float(ready)}" in (await http.get("/gateway/metrics")).text
            assert (await http.get("/readyz")).status_code == (200 if ready else 503)
            assert (await http.get("/readyz/absent")).status_code == 404
            assert pollers[0].can_answer("images", None)
            assert pollers[0].can_answer("images", "1.0")
            assert pollers[0].can_answer("", None)
            shutdown.begin()
