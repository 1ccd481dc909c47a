"""Tests of the defaults of a task that implements only the four abstract methods."""

import json

import pytest

from handlers.core.handler import Handler
from handlers.core.task import Task
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.sending import OPEN_INFERENCE, js, raw, send

METHODS = {"load", "decode", "predict", "encode"}


class Length(Handler[str, int]):
    """A task that counts the characters of a text."""

    media_type = "text/plain"
    example = "warm"

    def load(self, folder, config, device):
        self.predicted = []

    def decode(self, payload, parameters):
        return payload if isinstance(payload, str) else payload.decode()

    def predict(self, items):
        self.predicted.append(list(items))
        return [len(item) for item in items]

    def encode(self, answer):
        return {"length": answer}


@pytest.fixture
def context(tmp_path):
    return FakeContext(tmp_path, {})


@pytest.fixture
def handler(context):
    handler = Length()
    handler.initialize(context)
    return handler


@pytest.mark.parametrize("base", [Task, Handler])
def test_four_methods_are_abstract(base):
    assert base.__abstractmethods__ == METHODS


def test_requests_are_answered_with_the_defaults(handler, context):
    answers, statuses = send(handler, context, raw("abc"), js({"inputs": ["a", "bc"]}))
    assert answers == [[{"length": 3}], [{"length": 1}, {"length": 2}]]
    assert statuses == [200, 200]
    assert handler.predicted[-1] == ["abc", "a", "bc"]


def test_warm_up_runs_the_example(handler):
    assert handler.predicted == [["warm"]]


def test_parameters_are_rejected_by_default(handler, context):
    (answer,), statuses = send(handler, context, js({"inputs": "a", "parameters": {"k": 1}}))
    assert statuses == [400]
    assert "'k'" in answer["message"]


def test_answers_are_one_tensor_of_json_by_default(handler, context):
    tensor = {"name": "data", "shape": [2], "datatype": "BYTES", "data": ["a", "bcd"]}
    fields, _ = js({"inputs": [tensor]})
    (answer,), _ = send(handler, context, (fields, OPEN_INFERENCE))
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("output", "BYTES", [2])
    assert [json.loads(value) for value in output["data"]] == [{"length": 1}, {"length": 3}]
    described = handler.description()
    assert [tensor["name"] for tensor in described["outputs"]] == ["output"]
