"""Tests of the polling thread: attempts, pauses and errors."""

import threading
from dataclasses import replace

import pytest

from torchserve_models import client
from torchserve_models.client import Endpoints
from torchserve_models.serving.health import model_poller
from torchserve_models.serving.health.model_poller import ModelPoller, PollResult, pause_s
from torchserve_models.serving.health.model_states import ServerDescription


@pytest.fixture
def server_descriptions(monkeypatch):
    """Results of `describe_server`, in order; the last one is repeated, and exceptions are raised."""
    results = [ServerDescription((), {})]
    monkeypatch.setattr(model_poller, "_MIN_PAUSE_S", 0.0)
    monkeypatch.setattr(model_poller, "INTERVAL_S", 60.0)
    monkeypatch.setattr(model_poller, "ALARM_INTERVAL_S", 0.0)

    def describe_server(_connection, _timeout, answered, first):
        results_first.append(first)
        result = results.pop(0) if len(results) > 1 else results[0]
        if isinstance(result, Exception):
            raise result
        answered()
        return result

    results_first = []
    monkeypatch.setattr(model_poller, "describe_server", describe_server)
    describe_server.results, describe_server.first = results, results_first
    return describe_server


@pytest.fixture
def messages():
    return []


@pytest.fixture
def poller(messages, server_descriptions):
    poller = ModelPoller(Endpoints(), messages.append)
    yield poller
    poller.close()
    poller.close()


def test_unanswered_attempt_is_counted(poller, server_descriptions):
    server_descriptions.results[:] = [client.Timeout("no answer"), ServerDescription((), {"a": "why"})]
    poller.answered_at = 0.0
    assert poller.poll().server_description is None
    assert poller.answered_at == 0.0
    poll = poller.poll()
    assert (poll.number, poll.server_description.undescribed) == (2, {"a": "why"})
    assert poller.latest is poll
    assert poller.answered_at > 0.0


def test_unreached_models_are_described_first(poller, server_descriptions):
    server_descriptions.results[:] = [
        ServerDescription((), {}, {"a": "late", "b": "no time"}, frozenset("b")),
        ServerDescription((), {}),
    ]
    for _ in range(3):
        poller.poll()
    assert server_descriptions.first == [frozenset(), frozenset("b"), frozenset()]


def test_requested_poll_follows_the_current_one_at_once(poller, server_descriptions):
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


@pytest.mark.parametrize("failing_step", ["describe", "take", "calm"])
def test_unexpected_error_is_logged_once_and_polling_continues(
    poller, server_descriptions, messages, failing_step
):
    error = ValueError("a mistake")
    fifth = threading.Event()
    if failing_step == "describe":
        server_descriptions.results[:] = [error]

    def take(poll):
        if poll.number == 5:
            fifth.set()
        if failing_step == "take":
            raise error

    def calm():
        if failing_step == "calm":
            raise error
        return False

    poller.start(take, calm)
    assert fifth.wait(10)
    poller.close()
    assert len(messages) == 1
    assert "a mistake" in messages[0]


@pytest.mark.parametrize(
    ("answered", "took", "calm", "pause"),
    [
        (True, 0.1, True, 0.9),
        (True, 0.1, False, 0.4),
        (True, 1.5, True, 1.5),  # as with many GPU workers
        (True, 4.0, True, 2.0),
        (False, 0.0, True, 0.5),  # no server listens
        (False, 2.0, True, 0.05),  # it may hang: time matters
    ],
)
def test_pause_depends_on_the_duration_of_the_poll(answered, took, calm, pause):
    poll = PollResult(1, 0.0, 0.0, ServerDescription((), {}))
    assert pause_s(poll if answered else replace(poll, server_description=None), took, calm) == pytest.approx(
        pause
    )
