"""The gateway's metrics."""

import json

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.gateway.torchserve_stub import TorchServeStub
from torchserve_models.gateway.app import create_app
from torchserve_models.gateway.settings import GatewaySettings


@pytest.fixture
def state_file(tmp_path):
    return tmp_path / "state.json"


@pytest.fixture
async def http(state_file):
    settings = GatewaySettings(
        image_model="images", summarizers={"t5": "texts"}, max_text_body_bytes=1000, state_file=state_file
    )
    app = create_app(settings, httpx.MockTransport(TorchServeStub().handle_rest))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


async def samples(http):
    response = await http.get("/gateway/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_responses_are_counted_by_route_and_status(http):
    for path in ("/nothing", "/nothing/at/all", "/model", "/docs", "/docs/page.js", "/docs/page.css"):
        await http.get(path)
    await http.post("/predict/text_summarize", json={"text": "a"})
    metrics = await samples(http)
    requests = {key[1:]: value for key, value in metrics.items() if key[0] == "gateway_requests_total"}
    assert requests == {
        ("404", "other"): 2,
        ("/model", "405"): 1,
        ("/docs", "200"): 1,
        ("/docs/{name}", "200"): 2,
        ("/predict/text_summarize", "200"): 1,
    }
    assert metrics["gateway_requests_in_progress",] == 1  # the request for the metrics
    assert metrics["gateway_body_bytes",] == 0


async def test_rejected_bodies_are_counted_by_reason(http):
    await http.post("/predict/text_summarize", content=b"x" * 2000)
    await http.post("/predict/text_summarize", content=b"[")
    await http.post("/model", content=b"[")
    metrics = await samples(http)
    reasons = {key[1]: value for key, value in metrics.items() if key[0] == "gateway_refused_bodies_total"}
    assert reasons == {"too_large": 1, "invalid": 2, "busy": 0, "slow": 0}


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"restarts": 7}', '{"restarts": {"nginx": 1}}'])
async def test_missing_or_invalid_state_file_is_ignored(http, state_file, text):
    if text is not None:
        state_file.write_text(text)
    assert ("gateway_body_bytes",) in await samples(http)


async def test_restarts_are_read_from_the_state_file(http, state_file):
    state_file.write_text(json.dumps({"restarts": {"nginx": {"died": 2}, "gateway": {}}}))
    assert (await samples(http))["gateway_process_restarts_total", "died", "nginx"] == 2
