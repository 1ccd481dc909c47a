"""Fixtures: a fake TorchServe, and an HTTP client of a gateway in front of it."""

import httpx
import pytest

from tests.unit.gateway.app_responses import SETTINGS
from tests.unit.gateway.torchserve_stub import TorchServeStub
from torchserve_models.gateway.app import create_app


@pytest.fixture
def served():
    return TorchServeStub()


@pytest.fixture
async def http(served):
    app = create_app(SETTINGS, httpx.MockTransport(served.handle_rest))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client
