"""Probes: answered from memory, which a background task keeps up to date."""

import asyncio
import contextlib
import time
from typing import Any

import httpx
import pytest

from tests.unit.gateway.behind import Served
from torchserve_models.client.errors import from_answer
from torchserve_models.gateway import readiness
from torchserve_models.gateway.app import create
from torchserve_models.gateway.settings import Settings

HEALTH = "http://supervisor:8083"


def model(name, version="1.0", default=True, **changes) -> dict[str, Any]:
    ready = {"ready": True, "strict": True, "reason": None, "strict_reason": None}
    return {"name": name, "version": version, "default": default, "min_workers": 1} | ready | changes


def state(*models, **changes) -> dict[str, Any]:
    ready = {"ready": True, "strict": True, "reason": None, "strict_reason": None, "live": True}
    return {"phase": "ready", "models": list(models), "unavailable": {}} | ready | changes


class Behind:
    """A supervisor that answers `state`, or None of them, in front of a pretended TorchServe."""

    def __init__(self):
        self.state: dict[str, Any] | None = state(model("images"), model("texts"))
        self.torchserve = Served()
        self.asked: list[str] = []
        self.delay = 0.0

    async def answer(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(self.delay)
        self.asked.append(request.url.path)
        if request.url.host == "supervisor":
            if self.state is None:
                raise httpx.ConnectError("refused")
            return httpx.Response(200, json=self.state)
        return self.torchserve.rest(request)


@pytest.fixture
def behind(monkeypatch):
    monkeypatch.setattr(readiness, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(readiness, "MANAGEMENT_INTERVAL_S", 0.01)
    monkeypatch.setattr(readiness, "STATE_LIMIT_S", 0.3)
    return Behind()


@contextlib.asynccontextmanager
async def gateway(behind, **settings):
    app = create(Settings(health=HEALTH, **settings), httpx.MockTransport(behind.answer))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        yield client


async def until(client, path, status):
    """The body of the first answer with that status."""
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
async def test_a_server_that_serves_is_ready_by_every_route(behind, supervised):
    behind.state = behind.state if supervised else None
    async with gateway(behind) as client:
        for path in (*ROUTES, "/livez", "/v2/health/live"):
            assert (await client.get(path)).status_code == 200, path
        assert await get(client, "/readyz") == (200, {"ready": True})
        assert await get(client, "/ping") == (200, {"status": "Healthy"})
        assert await get(client, "/v2/models/texts/ready") == (200, {"name": "texts", "ready": True})
        assert await get(client, "/v1/models/texts") == (200, {"name": "texts", "ready": True})
        assert await get(client, "/v1/models") == (200, {"models": ["images", "texts"]})
    assert not any("predictions" in path for path in behind.asked)


async def test_what_the_supervisor_says_counts_and_not_torchserve(behind):
    broken = model("images", ready=False, reason="worker 7 has died", strict=False)
    behind.state = state(broken, model("texts"), ready=False, reason="images: worker 7 has died")
    async with gateway(behind) as client:
        assert await get(client, "/readyz") == (
            503,
            {"ready": False, "reason": "images: worker 7 has died"},
        )
        assert await get(client, "/readyz/images") == (503, {"ready": False, "reason": "worker 7 has died"})
        assert (await get(client, "/v2/models/texts/ready"))[0] == 200
        status, body = await get(client, "/ping")
        assert (status, body["status"]) == (503, "Unhealthy")
        behind.state = state(model("images"), model("texts"))
        assert await until(client, "/readyz/images", 200) == {"ready": True}


@pytest.mark.parametrize("setting", [True, False])
async def test_strict_mode_as_a_setting_and_in_the_query(behind, setting):
    weak = model("texts", strict=False, strict_reason="1 of 2 workers can answer")
    behind.state = state(
        model("images"), weak, strict=False, strict_reason="texts 1.0: 1 of 2 workers can answer"
    )
    async with gateway(behind, strict=setting) as client:
        for path in ("/readyz", "/ping", "/readyz/texts"):
            assert (await client.get(path)).status_code == (503 if setting else 200)
            response = await client.get(f"{path}?strict=1")
            assert response.status_code == 503
            assert "1 of 2 workers can answer" in response.json()["reason"]
        assert (await client.get("/readyz/images?strict=1")).status_code == 200


@pytest.mark.parametrize("supervised", [True, False])
async def test_an_unknown_model_or_version_is_404(behind, supervised):
    behind.state = behind.state if supervised else None
    async with gateway(behind) as client:
        for path in ("/readyz/absent", "/readyz/images/9", "/v2/models/absent/ready"):
            status, body = await get(client, path)
            assert (status, body["code"]) == (404, 404)
            assert "ModelNotFound" in body["type"]
            assert body["error"] == body["message"]


async def test_a_model_that_cannot_be_described_is_there_and_not_ready(behind):
    behind.state = state(model("texts"), unavailable={"odd": "TorchServe cannot describe it: no such route"})
    async with gateway(behind) as client:
        assert await get(client, "/readyz/odd") == (
            503,
            {"ready": False, "reason": "TorchServe cannot describe it: no such route"},
        )
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda served: setattr(served, "status", "UNLOADING"), "0 of 1 workers are READY"),
        (lambda served: setattr(served, "names", []), "no model is registered"),
    ],
)
async def test_without_a_supervisor_the_workers_decide(behind, change, reason):
    behind.state = None
    async with gateway(behind) as client:
        change(behind.torchserve)
        assert reason in (await until(client, "/readyz", 503))["reason"]


async def test_without_a_supervisor_one_broken_model_leaves_the_others_ready(behind):
    behind.state = None
    behind.torchserve.names = ["images", "texts"]
    original = behind.torchserve.rest

    def rest(request):
        if request.url.path.startswith("/models/texts"):
            raise from_answer(404, "ModelNotFoundException", "Model not found: texts")
        return original(request)

    behind.torchserve.rest = rest
    async with gateway(behind) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/readyz?strict=1")).status_code == 503
        assert (await client.get("/readyz/texts")).status_code == 503
        assert (await client.get("/readyz/images")).status_code == 200


async def test_a_supervisor_that_goes_away_is_replaced_by_torchserves_word(behind):
    async with gateway(behind) as client:
        behind.state = None
        end = time.monotonic() + 10
        while "/models" not in behind.asked:
            assert (await client.get("/readyz")).status_code == 200  # not for a moment
            assert time.monotonic() < end
            await asyncio.sleep(0.005)


async def test_nobody_answers(behind):
    async with gateway(behind) as client:
        behind.state = None
        behind.torchserve.describing = httpx.ConnectError("refused")
        assert "nothing has been heard of TorchServe" in (await until(client, "/readyz", 503))["reason"]
        for path in (*ROUTES, "/v2/health/live"):
            assert (await client.get(path)).status_code == 503, path
        assert (await client.get("/livez")).status_code == 200


async def test_nobody_has_ever_answered(behind):
    behind.state = None
    behind.torchserve.describing = httpx.ConnectError("refused")
    async with gateway(behind) as client:
        for path in (*ROUTES, "/v2/health/live"):
            status, body = await get(client, path)
            assert status == 503, path
            assert "TorchServe does not answer" in body["reason"]


async def test_a_probe_waits_for_nobody(behind, monkeypatch):
    monkeypatch.setattr(readiness, "POLL_TIMEOUT_S", 0.05)
    behind.delay = 30.0
    async with gateway(behind) as client:
        start = time.monotonic()
        answers = await asyncio.gather(*(client.get(path) for path in ROUTES * 10))
        assert {answer.status_code for answer in answers} == {503}
        assert time.monotonic() - start < 5


async def test_probes_ask_nobody(behind):
    behind.delay = 0.2
    async with gateway(behind) as client:
        before = len(behind.asked)
        for _ in range(20):
            assert (await client.get("/readyz/images")).status_code == 200
        assert len(behind.asked) - before <= 2
