"""Model descriptions from the management API: versions, and the handler's metadata."""

import json

import httpx
import pytest

from torchserve_models.client import AsyncClient, ModelNotFound, Overloaded
from torchserve_models.gateway.upstream.model_descriptions import ModelDescription, ModelDescriptions


def version(name, number, workers=("READY",), **more):
    return {
        "modelName": name,
        "modelVersion": number,
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "maxBatchDelay": 1,
        "responseTimeout": 1,
        "workers": [{"id": index, "status": status} for index, status in enumerate(workers)],
    } | more


MODELS = {
    "good": [version("good", "1"), version("good", "2")],
    "resting": [version("resting", "1", workers=())],
    "starting": [version("starting", "1", workers=("UNLOADING",))],
    "foreign": [version("foreign", "1")],
    "broken": [version("broken", "1")],
}
METADATA = {"good": {"inputs": []}, "foreign": "a string"}


@pytest.fixture
async def client():
    """A client with a fake management API. `asked` lists the models whose metadata was requested."""
    described, busy, gone = [], {"broken"}, set()

    def answer(request):
        _, _, *path = request.url.path.split("/")
        if not path:
            models = [{"modelName": name, "modelUrl": f"{name}.mar"} for name in [*MODELS, "gone"]]
            return httpx.Response(200, json={"models": models})
        name, number = path[0], path[1] if len(path) > 1 else "1"
        if name not in MODELS or name in gone:
            error = {"code": 404, "type": "ModelNotFoundException", "message": f"Model not models: {name}"}
            return httpx.Response(404, json=error)
        versions = [entry for entry in MODELS[name] if number in ("all", entry["modelVersion"])]
        if "customized" in request.url.params:
            described.append(name)
            if name in busy:
                return httpx.Response(503, json={"code": 503, "type": "X", "message": "no"})
            versions[0] = versions[0] | {"customizedMetadata": METADATA[name]}
        return httpx.Response(200, content=json.dumps(versions))

    async with AsyncClient(transport=httpx.MockTransport(answer), retries=0) as client:
        client.described, client.busy, client.gone = described, busy, gone
        yield client


async def test_models_are_sorted_by_name(client):
    models = await ModelDescriptions(client).fetch_all()
    assert [model.name for model in models] == ["broken", "foreign", "good", "resting", "starting"]
    assert models[2] == ModelDescription("good", ("1", "2"), "1", {"inputs": []})
    assert [model.metadata for model in models] == [{}, {}, {"inputs": []}, {}, {}]
    assert sorted(client.described) == ["broken", "foreign", "good"]


async def test_single_version_is_described(client):
    descriptions = ModelDescriptions(client)
    model = await descriptions.fetch("good", "2")
    assert (model.versions, model.default_version) == (("1", "2"), "1")
    with pytest.raises(ModelNotFound, match="version: 3 does not exist"):
        await descriptions.fetch("good", "3")


@pytest.mark.parametrize("name", ["gone", "..", "a/b", "", "ä"])
async def test_unknown_model_is_not_found(client, name):
    with pytest.raises(ModelNotFound):
        await ModelDescriptions(client).fetch(name)


async def test_metadata_is_cached_while_the_handler_is_busy(client):
    descriptions = ModelDescriptions(client)
    with pytest.raises(Overloaded):
        await descriptions.fetch("broken")
    client.busy.add("good")
    with pytest.raises(Overloaded):
        await descriptions.fetch("good")
    client.busy.remove("good")
    description = await descriptions.fetch("good")
    client.busy.add("good")
    assert await descriptions.fetch("good") == description
    assert description in await descriptions.fetch_all()


async def test_model_with_queued_requests_is_described_once(client, monkeypatch):
    queue = {"jobQueueStatus": {"remainingCapacity": 0, "pendingRequests": 7}}
    monkeypatch.setitem(MODELS, "good", [entry | queue for entry in MODELS["good"]])
    descriptions = ModelDescriptions(client)
    description = await descriptions.fetch("good")
    assert description.metadata == METADATA["good"]
    assert await descriptions.fetch("good") == description
    assert client.described == ["good"]


async def test_metadata_of_an_unregistered_model_is_removed(client):
    descriptions = ModelDescriptions(client)
    await descriptions.fetch("good")
    client.gone.add("good")
    with pytest.raises(ModelNotFound):
        await descriptions.fetch("good")
    client.gone.clear()
    client.busy.add("good")
    with pytest.raises(Overloaded):
        await descriptions.fetch("good")
