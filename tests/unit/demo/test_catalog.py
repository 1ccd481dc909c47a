"""The models of each task, and the limits of their parameters."""

import httpx
import pytest

from handlers.text.parameters import GenerationLimits
from torchserve_models.client import Client
from torchserve_models.demo.catalog import IMAGES, TEXTS, Catalog, CatalogEntry

TASKS = {"resnet": IMAGES, "bart": TEXTS, "asleep": None}


class Server:
    """A fake server with three models. The third model has no worker and therefore no metadata."""

    def __init__(self):
        self.requests = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, customized = request.url.path, "customized" in request.url.params
        self.requests.append((path, customized))
        if path == "/models":
            return httpx.Response(200, json={"models": [{"modelName": name} for name in TASKS]})
        name = path.split("/")[2]
        if customized and TASKS[name] is None:
            return httpx.Response(503, json={"code": 503, "type": "X", "message": "no worker"})
        model = {"modelName": name, "modelVersion": "1", "minWorkers": 1, "maxWorkers": 1, "batchSize": 8}
        model |= {"maxBatchDelay": 1, "responseTimeout": 60}
        if customized:
            model["customizedMetadata"] = {"task": TASKS[name]}
        return httpx.Response(200, json=[model])


def test_models_have_tasks_and_metadata_is_fetched_once():
    server = Server()
    catalog = Catalog(Client(transport=httpx.MockTransport(server), retries=0))
    for _ in range(2):
        assert [catalog.names(task) for task in (IMAGES, TEXTS)] == [["resnet"], ["bart"]]
    assert [entry.name for entry in catalog.entries()] == ["asleep", "bart", "resnet"]
    fetched = [path for path, customized in server.requests if customized and "asleep" not in path]
    assert sorted(fetched) == ["/models/bart/1", "/models/resnet/1"]


@pytest.mark.parametrize("how", ["words", "numbers"])
def test_limits_come_from_the_handler_metadata(how):
    allowed = GenerationLimits(99, 3).parameters()
    if how == "words":
        parameters = {parameter.name: parameter.expected() for parameter in allowed}
    else:
        parameters = [
            {"name": parameter.name, "minimum": parameter.low, "maximum": parameter.high}
            for parameter in allowed
        ]
    entry = CatalogEntry("m", "1", {"parameters": parameters, "defaults": {"num_beams": 2}})
    assert entry.limits("max_new_tokens") == (1, 99)
    assert entry.limits("min_new_tokens") == (0, 99)
    assert entry.limits("num_beams") == (1, 3)
    assert entry.default("num_beams") == 2
    assert (
        CatalogEntry("m", "1", {"parameters": parameters, "defaults": {"num_beams": 9}}).default("num_beams")
        == 3
    )
    assert entry.drop_defaults({"num_beams": 2, "max_new_tokens": 60}) == {"max_new_tokens": 60}
    assert entry.drop_defaults({"num_beams": 1}) == {"num_beams": 1}


def test_handler_without_metadata_has_default_limits():
    entry = CatalogEntry("m", "1")
    assert entry.task is None
    for name in ("max_new_tokens", "min_new_tokens", "num_beams"):
        low, high = entry.limits(name)
        assert low <= entry.default(name) <= high
