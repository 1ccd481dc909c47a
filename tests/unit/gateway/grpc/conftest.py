"""Fixtures: a fake TorchServe with a real handler, and an HTTP client of a gateway in front of it."""

import httpx
import pytest

from tests.unit.gateway.grpc.grpc_calls import EchoTorchServe
from torchserve_models.gateway.app import create_app
from torchserve_models.gateway.settings import GatewaySettings


@pytest.fixture
def torchserve(tmp_path):
    return EchoTorchServe(tmp_path)


@pytest.fixture
async def http(torchserve):
    app = create_app(GatewaySettings(max_body_bytes=2**20), httpx.MockTransport(torchserve.handle_rest))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client
