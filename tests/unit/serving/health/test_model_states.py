"""Tests of describing all models if some of them fail or time out."""

import os

import pytest

from tests.unit.serving.fake_client import FakeClient
from torchserve_models import client
from torchserve_models.client import ModelEntry
from torchserve_models.serving.health import model_states
from torchserve_models.serving.health.model_states import describe_server, inspect


class FakeManagement(FakeClient):
    """Fake management API with a simulated clock; each model takes `seconds` to describe."""

    def __init__(self, *names, seconds=0.0, failing=None):
        self.names = names
        self.seconds = seconds
        self.failing = failing or {}
        self.described_names = []
        self.now = 100.0

    def list_models(self):
        return [ModelEntry(name, f"{name}.mar") for name in self.names]

    def describe_versions(self, name):
        self.described_names.append(name)
        self.now += self.seconds
        if name in self.failing:
            raise self.failing[name]
        return [described(name)]


def described(name):
    worker = client.Worker("9000", "READY", os.getpid(), False, 0, "2026-11-29T10:00:00.000Z")
    return client.Model(
        name=name,
        version="1",
        url=f"{name}.mar",
        min_workers=1,
        max_workers=1,
        batch_size=8,
        max_batch_delay=10,
        response_timeout=60,
        startup_timeout=120,
        device_type=None,
        loaded_at_startup=True,
        workers=(worker,),
        queue_free=100,
        queue_waiting=0,
    )


@pytest.fixture
def management(monkeypatch):
    def make(*names, **options):
        management = FakeManagement(*names, **options)
        monkeypatch.setattr(model_states.time, "monotonic", lambda: management.now)
        monkeypatch.setattr(model_states, "Client", management)
        return management

    return make


def names(result):
    return [model.name for model in result.models]


def test_models_are_described_in_order_of_their_names(management):
    result = describe_server(management("b", "a"), 4.0)
    assert (names(result), result.undescribed, result.unreached) == (["a", "b"], {}, {})
    assert (result.models[0].batch_size, result.models[0].max_batch_delay) == (8, 10)


def test_models_without_time_are_described_first_in_the_next_survey(management):
    connection = management(*"abcdef", seconds=1.5)
    result = describe_server(connection, 4.0)
    assert names(result) == ["a", "b", "c"]
    assert set(result.unreached) == result.out_of_time == {"d", "e", "f"}
    connection.described_names.clear()
    assert names(describe_server(connection, 4.0, first=result.out_of_time)) == ["d", "e", "f"]
    assert connection.described_names == ["d", "e", "f"]


def test_hanging_models_do_not_block_the_others(management):
    late = client.Timeout("no answer in time")
    connection = management("a", "b", "c", "d", failing={"a": late, "b": late})
    connection.describe_versions = slow(connection)
    result = describe_server(connection, 4.0)
    assert (names(result), set(result.unreached), result.out_of_time) == ([], set("abcd"), set("cd"))
    assert names(describe_server(connection, 4.0, first=result.out_of_time)) == ["c", "d"]


def slow(connection):
    describe = connection.describe_versions

    def described_or_late(name):
        connection.now += 2.1 if name in connection.failing else 0.1
        return describe(name)

    return described_or_late


def test_undescribable_model_is_distinguished_from_an_unreachable_one(management):
    failing = {"a": client.NotFound("no such route"), "b": client.Unavailable("the connection broke")}
    answers = []
    result = describe_server(management("a", "b", "c", failing=failing), 4.0, lambda: answers.append(1))
    assert names(result) == ["c"]
    assert result.undescribed == {"a": "no such route"}
    assert result.unreached == {"b": "the connection broke"}
    assert result.out_of_time == frozenset()
    assert len(answers) == 3  # the list, a and c


def test_incomplete_survey_is_an_error_if_all_models_are_required(management):
    connection = management(*"abcdef", seconds=1.5)
    with pytest.raises(client.Timeout, match="did not describe d"):
        inspect(client.Endpoints(), timeout=4.0)
    connection.seconds = 0.0
    assert [model.name for model in inspect(client.Endpoints(), timeout=4.0)] == list("abcdef")
