"""Probe responses from the state that a background task polls."""

import asyncio
import contextlib
import time
from typing import Any

import httpx
import pytest

from tests.unit.gateway.torchserve_stub import TorchServeStub
from torchserve_models.client.error_conversion import error_from_answer
from torchserve_models.gateway import readiness_poller
from torchserve_models.gateway.app import create_app
from torchserve_models.gateway.settings import GatewaySettings

HEALTH = "http://supervisor:8083"


def model(name, version="1.0", default=True, **changes) -> dict[str, Any]:
    ready = {"ready": True, "strict": True, "reason": None, "strict_reason": None}
    return {"name": name, "version": version, "default": default, "min_workers": 1} | ready | changes


def state(*models, **changes) -> dict[str, Any]:
    ready = {"ready": True, "strict": True, "reason": None, "strict_reason": None, "live": True}
    return {"phase": "ready", "models": list(models), "unavailable": {}, "missing": []} | ready | changes


class FakeUpstream:
    """A fake supervisor that answers `state`, or does not respond if it is None, and a fake TorchServe."""

    def __init__(self):
        self.state: dict[str, Any] | None = state(model("images"), model("texts"))
        self.torchserve = TorchServeStub()
        self.requested_paths: list[str] = []
        self.delay = 0.0

    async def answer(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(self.delay)
        self.requested_paths.append(request.url.path)
        if request.url.host == "supervisor":
            if self.state is None:
                raise httpx.ConnectError("refused")
            return httpx.Response(200, json=self.state)
        return self.torchserve.handle_rest(request)


@pytest.fixture
def upstream(monkeypatch):
    monkeypatch.setattr(readiness_poller, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(readiness_poller, "MANAGEMENT_INTERVAL_S", 0.01)
    monkeypatch.setattr(readiness_poller, "STATE_LIMIT_S", 0.3)
    return FakeUpstream()


@contextlib.asynccontextmanager
async def gateway(upstream, **settings):
    app = create_app(GatewaySettings(health=HEALTH, **settings), httpx.MockTransport(upstream.answer))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        yield client


async def wait_for_status(client, path, status):
    """Wait for a response with this status and return its body."""
    end = time.monotonic() + 10
    while (response := await client.get(path)).status_code != status:
        assert time.monotonic() < end, response.text
        await asyncio.sleep(0.005)
    return response.json()


async def get(client, path):
    response = await client.get(path)
    return response.status_code, response.json()


ROUTES = [
    "/readyz",
    "/readyz/images",
    "/readyz/images/1.0",
    "/ping",
    "/v2/health/ready",
    "/v2/models/images/ready",
    "/v2/models/images/versions/1.0/ready",
]


@pytest.mark.parametrize("supervised", [True, False])
async def test_working_server_is_ready_on_every_route(upstream, supervised):
    upstream.state = upstream.state if supervised else None
    async with gateway(upstream) as client:
        for path in (*ROUTES, "/livez", "/v2/health/live"):
            assert (await client.get(path)).status_code == 200, path
        assert await get(client, "/readyz") == (200, {"ready": True})
        assert await get(client, "/ping") == (200, {"status": "Healthy"})
        assert await get(client, "/v2/models/texts/ready") == (200, {"name": "texts", "ready": True})
        assert await get(client, "/v1/models/texts") == (200, {"name": "texts", "ready": True})
        assert await get(client, "/v1/models") == (200, {"models": ["images", "texts"]})
    assert not any("predictions" in path for path in upstream.requested_paths)


async def test_supervisor_state_takes_precedence_over_the_management_api(upstream):
    broken = model("images", ready=False, reason="worker 7 has died", strict=False)
    upstream.state = state(broken, model("texts"), ready=False, reason="images: worker 7 has died")
    async with gateway(upstream) as client:
        assert await get(client, "/readyz") == (
            503,
            {"ready": False, "reason": "images: worker 7 has died"},
        )
        assert await get(client, "/readyz/images") == (503, {"ready": False, "reason": "worker 7 has died"})
        assert (await get(client, "/v2/models/texts/ready"))[0] == 200
        status, body = await get(client, "/ping")
        assert (status, body["status"]) == (503, "Unhealthy")
        upstream.state = state(model("images"), model("texts"))
        assert await wait_for_status(client, "/readyz/images", 200) == {"ready": True}


@pytest.mark.parametrize("setting", [True, False])
async def test_strict_mode_can_be_set_or_requested(upstream, setting):
    weak = model("texts", strict=False, strict_reason="1 of 2 workers can answer")
    upstream.state = state(
        model("images"), weak, strict=False, strict_reason="texts 1.0: 1 of 2 workers can answer"
    )
    async with gateway(upstream, strict=setting) as client:
        for path in ("/readyz", "/ping", "/readyz/texts"):
            assert (await client.get(path)).status_code == (503 if setting else 200)
            response = await client.get(f"{path}?strict=1")
            assert response.status_code == 503
            assert "1 of 2 workers can answer" in response.json()["reason"]
        assert (await client.get("/readyz/images?strict=1")).status_code == 200


@pytest.mark.parametrize("supervised", [True, False])
async def test_unknown_model_or_version_is_404(upstream, supervised):
    upstream.state = upstream.state if supervised else None
    async with gateway(upstream) as client:
        for path in ("/readyz/absent", "/readyz/images/9", "/v2/models/absent/ready"):
            status, body = await get(client, path)
            assert (status, body["code"]) == (404, 404)
            assert "ModelNotFound" in body["type"]
            assert body["error"] == body["message"]


async def test_model_without_a_description_is_503(upstream):
    upstream.state = state(
        model("texts"), unavailable={"odd": "TorchServe cannot describe the model: no such route"}
    )
    async with gateway(upstream) as client:
        assert await get(client, "/readyz/odd") == (
            503,
            {"ready": False, "reason": "TorchServe cannot describe the model: no such route"},
        )
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda served: setattr(served, "status", "UNLOADING"), "images: worker 4711 is loading the model"),
        (lambda served: setattr(served, "names", []), "no model is registered"),
    ],
)
async def test_workers_decide_readiness_without_a_supervisor(upstream, change, reason):
    upstream.state = None
    async with gateway(upstream) as client:
        change(upstream.torchserve)
        assert reason in (await wait_for_status(client, "/readyz", 503))["reason"]


async def test_model_without_a_description_leaves_other_models_ready(upstream):
    upstream.state = None
    upstream.torchserve.names = ["images", "texts"]
    original = upstream.torchserve.handle_rest

    def answer(request):
        if request.url.path.startswith("/models/texts"):
            raise error_from_answer(404, "ModelNotFoundException", "Model not found: texts")
        return original(request)

    upstream.torchserve.handle_rest = answer
    async with gateway(upstream) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/readyz?strict=1")).status_code == 503
        assert (await client.get("/readyz/texts")).status_code == 503
        assert (await client.get("/readyz/images")).status_code == 200


async def test_management_api_replaces_a_missing_supervisor(upstream):
    async with gateway(upstream) as client:
        upstream.state = None
        end = time.monotonic() + 10
        while "/models" not in upstream.requested_paths:
            assert (await client.get("/readyz")).status_code == 200  # the server stays ready
            assert time.monotonic() < end
            await asyncio.sleep(0.005)


async def test_server_that_stops_answering_becomes_unready(upstream):
    async with gateway(upstream) as client:
        upstream.state = None
        upstream.torchserve.describing = httpx.ConnectError("refused")
        assert "TorchServe has not answered for" in (await wait_for_status(client, "/readyz", 503))["reason"]
        for path in (*ROUTES, "/v2/health/live"):
            assert (await client.get(path)).status_code == 503, path
        assert (await client.get("/livez")).status_code == 200


async def test_server_that_never_answered_is_unready(upstream):
    upstream.state = None
    upstream.torchserve.describing = httpx.ConnectError("refused")
    async with gateway(upstream) as client:
        for path in (*ROUTES, "/v2/health/live"):
            status, body = await get(client, path)
            assert status == 503, path
            assert "TorchServe does not answer" in body["reason"]


async def test_probe_does_not_wait_for_slow_server(upstream, monkeypatch):
    monkeypatch.setattr(readiness_poller, "POLL_TIMEOUT_S", 0.05)
    upstream.delay = 30.0
    async with gateway(upstream) as client:
        start = time.monotonic()
        answers = await asyncio.gather(*(client.get(path) for path in ROUTES * 10))
        assert {answer.status_code for answer in answers} == {503}
        assert time.monotonic() - start < 5


async def test_probes_send_no_requests_to_torchserve(upstream):
    upstream.delay = 0.2
    async with gateway(upstream) as client:
        before = len(upstream.requested_paths)
        for _ in range(20):
            assert (await client.get("/readyz/images")).status_code == 200
        assert len(upstream.requested_paths) - before <= 2
