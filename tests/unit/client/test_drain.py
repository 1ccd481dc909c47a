"""Draining: a worker or version is removed when it has no request."""

import pytest

from tests.unit.client.fake_torchserve import Version
from tests.unit.client.management_calls import both, changes, state_of
from torchserve_models.client import Timeout

pytestmark = pytest.mark.usefixtures("short_waits")


@both
@pytest.mark.parametrize("descriptions", [1, 3])
def test_worker_is_held_before_it_is_ended(call, connection, fake, protocol, descriptions):
    """A describe call goes to any worker; the supervisor's state names the worker that delays it."""
    fake.versions["texts"]["1.0"] = Version("texts.mar", 2, 2, [1, 2])
    fake.takes_holds = True
    is_held = []

    def state():
        assert len(fake.versions["texts"]["1.0"].pids) == 2
        value = state_of(fake)()
        workers = next(model["workers"] for model in value["models"] if model["name"] == "texts")
        workers[1]["held"] = bool(fake.asked_to_hold) and fake.customized >= descriptions
        is_held.append(workers[1]["held"])
        return value

    fake.state = state
    call(lambda c: c.scale("texts", 1), protocol=protocol, **connection)
    assert fake.asked_to_hold == [2]
    assert is_held[-1]
    assert not any(is_held[:-1])
    assert fake.versions["texts"]["1.0"].pids == [1]


def test_worker_that_cannot_be_held_is_ended_after_drain_timeout(call, connection, fake):
    fake.versions["texts"]["1.0"] = Version("texts.mar", 2, 2, [1, 2])
    fake.takes_holds = True
    fake.state = state_of(fake)
    call(lambda c: c.scale("texts", 1, drain_timeout=0.05), **connection)
    assert fake.versions["texts"]["1.0"].pids == [1]


@both
def test_worker_is_ended_while_idle(call, connection, fake, protocol):
    """TorchServe ends the last worker of its list."""
    fake.versions["texts"]["1.0"] = Version("texts.mar", 2, 2, [1, 2])
    states_read = []

    def state():
        states_read.append(None)
        assert len(fake.versions["texts"]["1.0"].pids) == 2
        return state_of(fake, w9000=1.0, **({"w9001": 0.5} if len(states_read) < 5 else {}))()

    fake.state = state
    call(lambda c: c.scale("texts", 1), protocol=protocol, **connection)
    assert len(states_read) == 5
    assert fake.versions["texts"]["1.0"].pids == [1]


def test_worker_that_is_never_idle_is_ended_after_drain_timeout(call, connection, fake):
    fake.versions["texts"]["1.0"] = Version("texts.mar", 2, 2, [1, 2])
    fake.state = state_of(fake, w9000=1.0, w9001=1.0)
    call(lambda c: c.scale("texts", 1, drain_timeout=0.5), **connection)
    assert fake.versions["texts"]["1.0"].pids == [1]
    assert fake.received.count(("GET", "/state")) > 3


@pytest.mark.parametrize(
    "operation",
    [
        lambda c: c.scale("texts", 0, drain_timeout=0.05),
        lambda c: c.unregister("texts", "2.0", drain_timeout=0.05),
    ],
)
def test_version_with_requests_is_not_unregistered(call, connection, fake, operation):
    fake.queued = 10**6
    with pytest.raises(
        Timeout, match=r"not drained after 0\.05 s: .* requests are queued\. Nothing was removed"
    ):
        call(operation, **connection)
    fake.queued = 0
    fake.state = state_of(fake, w9000=3.0)
    with pytest.raises(Timeout, match="the workers have requests"):
        call(operation, **connection)
    assert changes(fake) == []


@both
def test_unregister_waits_for_queue_and_workers(call, connection, fake, protocol):
    fake.queued = 5
    states_read = []

    def state():
        states_read.append(fake.queued)
        return state_of(fake, **({"w9000": 0.5} if len(states_read) < 5 else {}))()

    fake.state = state
    call(lambda c: c.unregister("texts", "2.0"), protocol=protocol, **connection)
    assert (
        len(states_read) == 7
    )  # the last three found it idle, with a question to the worker after the first of them
    assert max(states_read) <= 0  # none before the queue was empty
    assert list(fake.versions["texts"]) == ["1.0"]
    assert len(changes(fake)) == 1


def test_request_between_queue_and_worker_delays_unregistering(call, connection, fake):
    """During the batch delay the queue is empty, no worker computes, and a request is on its way."""
    answers = iter([5, 6, 7, 7, 7, 7])

    def state():
        value = state_of(fake)()
        count = next(answers)
        for model in value["models"]:
            for worker in model["workers"]:
                worker["answers"] = count
        return value

    fake.state = state
    call(lambda c: c.unregister("texts", "2.0"), **connection)
    assert next(answers, None) is None


@pytest.mark.parametrize("reports", ["no supervisor", "another server", False])
def test_drain_without_supervisor_sends_describe_through_queue(call, connection, fake, reports):
    def state():
        value = state_of(fake)()
        for model in value["models"]:
            for worker in model["workers"]:
                worker.update({"pid": 1} if reports == "another server" else {"reports": reports})
        return value

    fake.state = None if reports == "no supervisor" else state
    call(lambda c: c.unregister("texts", "2.0"), **connection)
    assert ("GET", "/models/texts/2.0?customized=true") in fake.received
    assert list(fake.versions["texts"]) == ["1.0"]


def test_drain_without_supervisor_waits_response_timeout_for_several_workers(call, connection, fake):
    fake.versions["texts"]["2.0"] = Version("texts.mar", 2, 2, [1, 2])
    with pytest.raises(Timeout):  # 60 s are more than this operation has
        call(lambda c: c.unregister("texts", "2.0", timeout=0.5), **connection)
    assert changes(fake) == []
