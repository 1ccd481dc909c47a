"""Once a shutdown has begun, readiness is false and nothing else changes."""

import httpx
import pytest

from gateway.app import create
from gateway.settings import Settings
from gateway.stopping import Stopping
from tests.unit.gateway.behind import Served

READINESS = ("/readyz", "/readyz/pictures", "/v2/health/ready", "/v2/models/pictures/ready",
             "/v2/models/pictures/versions/1.0/ready", "/ping")  # fmt: skip


@pytest.mark.parametrize("path", READINESS)
async def test_readiness_is_false(path):
    stopping = Stopping()
    app = create(Settings(image_model="pictures"), httpx.MockTransport(Served().rest), stopping)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        assert "shutting down" not in (await http.get(path)).text
        stopping.begin()
        response = await http.get(path)
        assert response.status_code == 503
        assert response.json()["reason"] == "the gateway is shutting down"
        assert (await http.get("/livez")).status_code == 200
        assert (await http.post("/model", json={"img": [[[1, 2, 3]]]})).status_code == 200
