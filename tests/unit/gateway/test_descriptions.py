"""What is served: each model's versions, and what its handler says, from the management API."""

import json

import httpx
import pytest

from torchserve_models.client import AsyncClient, ModelNotFound, Overloaded
from torchserve_models.gateway.descriptions import Descriptions, ModelDescription


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
    """`asked` are the models whose handlers were asked; those of `busy` do not answer, those of `gone` are none."""
    asked, busy, gone = [], {"broken"}, set()

    def answer(request):
        _, _, *path = request.url.path.split("/")
        if not path:
            found = [{"modelName": name, "modelUrl": f"{name}.mar"} for name in [*MODELS, "gone"]]
            return httpx.Response(200, json={"models": found})
        name, number = path[0], path[1] if len(path) > 1 else "1"
        if name not in MODELS or name in gone:
            error = {"code": 404, "type": "ModelNotFoundException", "message": f"Model not found: {name}"}
            return httpx.Response(404, json=error)
        versions = [each for each in MODELS[name] if number in ("all", each["modelVersion"])]
        if "customized" in request.url.params:
            asked.append(name)
            if name in busy:
                return httpx.Response(503, json={"code": 503, "type": "X", "message": "no"})
            versions[0] = versions[0] | {"customizedMetadata": METADATA[name]}
        return httpx.Response(200, content=json.dumps(versions))

    async with AsyncClient(transport=httpx.MockTransport(answer), retries=0) as client:
        client.asked, client.busy, client.gone = asked, busy, gone
        yield client


async def test_all_models_by_name(client):
    found = await Descriptions(client).all()
    assert [model.name for model in found] == ["broken", "foreign", "good", "resting", "starting"]
    assert found[2] == ModelDescription("good", ("1", "2"), "1", {"inputs": []})
    assert [model.metadata for model in found] == [{}, {}, {"inputs": []}, {}, {}]
    assert sorted(client.asked) == ["broken", "foreign", "good"]


async def test_a_version_of_a_model(client):
    descriptions = Descriptions(client)
    found = await descriptions.one("good", "2")
    assert (found.versions, found.default_version) == (("1", "2"), "1")
    with pytest.raises(ModelNotFound, match="version: 3 does not exist"):
        await descriptions.one("good", "3")


@pytest.mark.parametrize("name", ["gone", "..", "a/b", "", "ä"])
async def test_a_model_that_there_is_not(client, name):
    with pytest.raises(ModelNotFound):
        await Descriptions(client).one(name)


async def test_what_a_handler_has_said_is_kept_while_it_is_busy(client):
    descriptions = Descriptions(client)
    with pytest.raises(Overloaded):
        await descriptions.one("broken")
    client.busy.add("good")
    with pytest.raises(Overloaded):
        await descriptions.one("good")
    client.busy.remove("good")
    said = await descriptions.one("good")
    client.busy.add("good")
    assert await descriptions.one("good") == said
    assert said in await descriptions.all()


async def test_a_model_with_requests_in_its_queue_is_asked_once(client, monkeypatch):
    queue = {"jobQueueStatus": {"remainingCapacity": 0, "pendingRequests": 7}}
    monkeypatch.setitem(MODELS, "good", [each | queue for each in MODELS["good"]])
    descriptions = Descriptions(client)
    said = await descriptions.one("good")
    assert said.metadata == METADATA["good"]
    assert await descriptions.one("good") == said
    assert client.asked == ["good"]


async def test_what_a_model_has_said_goes_with_it(client):
    descriptions = Descriptions(client)
    await descriptions.one("good")
    client.gone.add("good")
    with pytest.raises(ModelNotFound):
        await descriptions.one("good")
    client.gone.clear()
    client.busy.add("good")
    with pytest.raises(Overloaded):
        await descriptions.one("good")
