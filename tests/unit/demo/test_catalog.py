"""Which models there are for a task, and what may be asked of each."""

import httpx
import pytest

from handlers.text.parameters import GenerationLimits
from torchserve_models.client import Client
from torchserve_models.demo.catalog import IMAGES, TEXTS, Catalog, Entry

TASKS = {"resnet": IMAGES, "bart": TEXTS, "asleep": None}


class Server:
    """Describes three models; the third has no worker that could say more."""

    def __init__(self):
        self.asked = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, customized = request.url.path, "customized" in request.url.params
        self.asked.append((path, customized))
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


def test_models_are_sorted_by_their_task_and_a_handler_is_asked_once():
    server = Server()
    catalog = Catalog(Client(transport=httpx.MockTransport(server), retries=0))
    for _ in range(2):
        assert [catalog.names(task) for task in (IMAGES, TEXTS)] == [["resnet"], ["bart"]]
    assert [entry.name for entry in catalog.entries()] == ["asleep", "bart", "resnet"]
    told = [path for path, customized in server.asked if customized and "asleep" not in path]
    assert sorted(told) == ["/models/bart/1", "/models/resnet/1"]


@pytest.mark.parametrize("how", ["words", "numbers"])
def test_limits_are_those_that_the_handler_names(how):
    allowed = GenerationLimits(99, 3).parameters()
    if how == "words":
        parameters = {each.name: each.expected() for each in allowed}
    else:
        parameters = [{"name": each.name, "minimum": each.low, "maximum": each.high} for each in allowed]
    entry = Entry("m", "1", {"parameters": parameters, "defaults": {"num_beams": 2}})
    assert entry.limits("max_new_tokens") == (1, 99)
    assert entry.limits("min_new_tokens") == (0, 99)
    assert entry.limits("num_beams") == (1, 3)
    assert entry.default("num_beams") == 2
    assert Entry("m", "1", {"parameters": parameters, "defaults": {"num_beams": 9}}).default("num_beams") == 3
    assert entry.changed({"num_beams": 2, "max_new_tokens": 60}) == {"max_new_tokens": 60}
    assert entry.changed({"num_beams": 1}) == {"num_beams": 1}


def test_a_handler_that_says_nothing_has_limits_still():
    entry = Entry("m", "1")
    assert entry.task is None
    for name in ("max_new_tokens", "min_new_tokens", "num_beams"):
        low, high = entry.limits(name)
        assert low <= entry.default(name) <= high
