"""Once a shutdown has begun, readiness is false and nothing else changes."""

import httpx
import pytest

from tests.unit.gateway.behind import Served
from torchserve_models.client._stubs import open_inference_grpc_pb2 as messages
from torchserve_models.gateway.app import create
from torchserve_models.gateway.settings import Settings
from torchserve_models.gateway.stopping import Stopping
from torchserve_models.gateway.waiting import Waiting

READINESS = ("/readyz", "/readyz/images", "/readyz/", "/v2/health/ready", "/v2/models/images/ready", "/ping",
             "/v2/models/images/versions/1.0/ready", "/v1/models/images")  # fmt: skip


@pytest.mark.parametrize("path", READINESS)
async def test_readiness_is_false(path):
    stopping = Stopping()
    app = create(Settings(image_model="images"), httpx.MockTransport(Served().rest), stopping)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        assert "shutting down" not in (await http.get(path)).text
        stopping.begin()
        response = await http.get(path)
        assert response.status_code == 503
        assert response.json()["reason"] == "the gateway is shutting down"
        assert (await http.get("/livez")).status_code == 200
        assert (await http.post("/model", json={"img": [[[1, 2, 3]]]})).status_code == 200


async def test_over_grpc_too_while_lost_requests_are_still_sent_again(monkeypatch):
    """The application is started, so that it knows that TorchServe is ready."""
    kept = []
    monkeypatch.setattr(
        "torchserve_models.gateway.app.Waiting",
        lambda readiness: kept.append(readiness) or Waiting(readiness),
    )
    stopping = Stopping()
    app = create(Settings(image_model="images"), httpx.MockTransport(Served().rest), stopping)

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
            assert kept[0].answers("images", None)
            assert kept[0].answers("images", "1.0")
            assert kept[0].answers("", None)
            stopping.begin()
