"""The one thread that asks the management API: its attempts, its pauses, and what cannot stop it."""

import threading
from dataclasses import replace

import pytest

from torchserve_models import client
from torchserve_models.client import Endpoints
from torchserve_models.serving.health import model_poller
from torchserve_models.serving.health.model_poller import ModelPoller, Poll, pause_s
from torchserve_models.serving.health.model_states import Survey


@pytest.fixture
def surveys(monkeypatch):
    """What surveys find, one after another, the last one again and again; exceptions are raised."""
    results = [Survey((), {})]
    monkeypatch.setattr(model_poller, "_MIN_PAUSE_S", 0.0)
    monkeypatch.setattr(model_poller, "INTERVAL_S", 60.0)
    monkeypatch.setattr(model_poller, "ALARM_INTERVAL_S", 0.0)

    def survey(_connection, _timeout, answered, first):
        results_first.append(first)
        found = results.pop(0) if len(results) > 1 else results[0]
        if isinstance(found, Exception):
            raise found
        answered()
        return found

    results_first = []
    monkeypatch.setattr(model_poller, "survey", survey)
    survey.results, survey.first = results, results_first
    return survey


@pytest.fixture
def said():
    return []


@pytest.fixture
def poller(said, surveys):
    made = ModelPoller(Endpoints(), said.append)
    yield made
    made.close()
    made.close()


def test_an_attempt_without_an_answer_is_one(poller, surveys):
    surveys.results[:] = [client.Timeout("no answer"), Survey((), {"a": "why"})]
    poller.answered_at = 0.0
    assert poller.poll().survey is None
    assert poller.answered_at == 0.0
    poll = poller.poll()
    assert (poll.number, poll.survey.undescribed) == (2, {"a": "why"})
    assert poller.latest is poll
    assert poller.answered_at > 0.0


def test_models_that_the_time_did_not_suffice_for_come_first(poller, surveys):
    surveys.results[:] = [Survey((), {}, {"a": "late", "b": "no time"}, frozenset("b")), Survey((), {})]
    for _ in range(3):
        poller.poll()
    assert surveys.first == [frozenset(), frozenset("b"), frozenset()]


def test_a_change_is_asked_for_at_once_also_while_an_attempt_is_under_way(poller, surveys):
    polls = []
    third = threading.Event()

    def take(poll):
        polls.append(poll.number)
        if poll.number == 1:
            poller.ask_soon()  # its answer may be older than the change
        if poll.number == 3:
            third.set()

    poller.start(take, lambda: True)
    assert not third.wait(0.3)  # calm: the next one is a minute away
    assert polls == [1, 2]
    poller.ask_soon()
    assert third.wait(10)


@pytest.mark.parametrize("place", ["survey", "take", "calm"])
def test_an_unexpected_error_is_logged_once_and_the_next_attempt_comes(poller, surveys, said, place):
    error = ValueError("a mistake")
    fifth = threading.Event()
    if place == "survey":
        surveys.results[:] = [error]

    def take(poll):
        if poll.number == 5:
            fifth.set()
        if place == "take":
            raise error

    def calm():
        if place == "calm":
            raise error
        return False

    poller.start(take, calm)
    assert fifth.wait(10)
    poller.close()
    assert len(said) == 1
    assert "a mistake" in said[0]


@pytest.mark.parametrize(
    ("answered", "took", "calm", "pause"),
    [
        (True, 0.1, True, 0.9),
        (True, 0.1, False, 0.4),
        (True, 1.5, True, 1.5),  # as with many GPU workers
        (True, 4.0, True, 2.0),
        (False, 0.0, True, 0.5),  # nobody listens
        (False, 2.0, True, 0.05),  # it may hang: time matters
    ],
)
def test_pauses(answered, took, calm, pause):
    poll = Poll(1, 0.0, 0.0, Survey((), {}))
    assert pause_s(poll if answered else replace(poll, survey=None), took, calm) == pytest.approx(pause)
