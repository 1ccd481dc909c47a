"""A survey of all models: what is kept when some of them cannot be described, or not in time."""

import os

import pytest

from torchserve_models import client
from torchserve_models.client import ModelEntry
from torchserve_models.serving.health import model_states
from torchserve_models.serving.health.model_states import inspect, survey


class FakeManagement:
    """Management of models, each of which takes `seconds` to describe, on a clock of its own."""

    def __init__(self, *names, seconds=0.0, failing=None):
        self.names = names
        self.seconds = seconds
        self.failing = failing or {}
        self.asked = []
        self.now = 100.0

    def __call__(self, **_):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def list_models(self):
        return [ModelEntry(name, f"{name}.mar") for name in self.names]

    def describe_versions(self, name):
        self.asked.append(name)
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
        made = FakeManagement(*names, **options)
        monkeypatch.setattr(model_states.time, "monotonic", lambda: made.now)
        monkeypatch.setattr(model_states, "Client", made)
        return made

    return make


def names(found):
    return [model.name for model in found.models]


def test_every_model_is_described_in_the_order_of_names(management):
    found = survey(management("b", "a"), 4.0)
    assert (names(found), found.undescribed, found.unreached) == (["a", "b"], {}, {})
    assert (found.models[0].batch_size, found.models[0].max_batch_delay) == (8, 10)


def test_what_was_described_in_time_is_kept_and_the_rest_comes_first_the_next_time(management):
    connection = management(*"abcdef", seconds=1.5)
    found = survey(connection, 4.0)
    assert names(found) == ["a", "b", "c"]
    assert set(found.unreached) == found.out_of_time == {"d", "e", "f"}
    connection.asked.clear()
    assert names(survey(connection, 4.0, first=found.out_of_time)) == ["d", "e", "f"]
    assert connection.asked == ["d", "e", "f"]


def test_models_that_hang_do_not_keep_the_others_from_being_described_for_ever(management):
    late = client.Timeout("no answer in time")
    connection = management("a", "b", "c", "d", failing={"a": late, "b": late})
    connection.describe_versions = slow(connection)
    found = survey(connection, 4.0)
    assert (names(found), set(found.unreached), found.out_of_time) == ([], set("abcd"), set("cd"))
    assert names(survey(connection, 4.0, first=found.out_of_time)) == ["c", "d"]


def slow(connection):
    describe = connection.describe_versions

    def described_or_late(name):
        connection.now += 2.1 if name in connection.failing else 0.1
        return describe(name)

    return described_or_late


def test_a_model_that_cannot_be_described_is_told_from_one_without_an_answer(management):
    failing = {"a": client.NotFound("no such route"), "b": client.Unavailable("the connection broke")}
    answers = []
    found = survey(management("a", "b", "c", failing=failing), 4.0, lambda: answers.append(1))
    assert names(found) == ["c"]
    assert found.undescribed == {"a": "no such route"}
    assert found.unreached == {"b": "the connection broke"}
    assert found.out_of_time == frozenset()
    assert len(answers) == 3  # the list, a and c


def test_who_needs_all_models_gets_an_error_instead_of_some(management):
    connection = management(*"abcdef", seconds=1.5)
    with pytest.raises(client.Timeout, match="did not describe d"):
        inspect(client.Endpoints(), timeout=4.0)
    connection.seconds = 0.0
    assert [model.name for model in inspect(client.Endpoints(), timeout=4.0)] == list("abcdef")
