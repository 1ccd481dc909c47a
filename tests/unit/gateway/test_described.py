"""What is served: each model's versions, and what its handler says, from the management API."""

import json

import httpx
import pytest

from client import AsyncClient, ModelNotFound
from gateway.described import Described, describe, described


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
    """`asked` are the models whose handlers were asked."""
    asked = []

    def answer(request):
        _, _, *path = request.url.path.split("/")
        if not path:
            found = [{"modelName": name, "modelUrl": f"{name}.mar"} for name in [*MODELS, "gone"]]
            return httpx.Response(200, json={"models": found})
        name, number = path[0], path[1] if len(path) > 1 else "1"
        if name not in MODELS:
            error = {"code": 404, "type": "ModelNotFoundException", "message": f"Model not found: {name}"}
            return httpx.Response(404, json=error)
        versions = [each for each in MODELS[name] if number in ("all", each["modelVersion"])]
        if "customized" in request.url.params:
            asked.append(name)
            if name == "broken":
                return httpx.Response(503, json={"code": 503, "type": "X", "message": "no"})
            versions[0] = versions[0] | {"customizedMetadata": METADATA[name]}
        return httpx.Response(200, content=json.dumps(versions))

    async with AsyncClient(transport=httpx.MockTransport(answer), retries=0) as client:
        client.asked = asked
        yield client


async def test_all_models_by_name(client):
    found = await described(client)
    assert [model.name for model in found] == ["broken", "foreign", "good", "resting", "starting"]
    assert found[2] == Described("good", ("1", "2"), "1", {"inputs": []})
    assert [model.metadata for model in found] == [{}, {}, {"inputs": []}, {}, {}]
    assert sorted(client.asked) == ["broken", "foreign", "good"]


async def test_a_version_of_a_model(client):
    found = await describe(client, "good", "2")
    assert (found.versions, found.default_version) == (("1", "2"), "1")
    with pytest.raises(ModelNotFound, match="version: 3 does not exist"):
        await describe(client, "good", "3")


@pytest.mark.parametrize("name", ["gone", "..", "a/b", "", "ä"])
async def test_a_model_that_there_is_not(client, name):
    with pytest.raises(ModelNotFound):
        await describe(client, name)
