"""Changes wait until the supervisor has recorded them."""

import pytest

from torchserve_models.client import snapshot_sync
from torchserve_models.client.call_types import Pause
from torchserve_models.client.errors import NotFound, Unavailable
from torchserve_models.client.snapshot_sync import run_and_await_snapshot


def change(calls):
    calls.append("change")
    yield Pause(0.0)
    return "changed"


def run(states, clock=lambda: 0.0):
    """Return the result and the calls; `states` are the supervisor's successive answers, or errors."""
    calls = []
    plan = run_and_await_snapshot(change(calls), clock)
    answers = iter(states)
    sent = None
    try:
        while True:
            step = plan.send(sent)
            sent = None
            while not isinstance(step, Pause):
                answer = next(answers)
                calls.append("state")
                if isinstance(answer, Exception):
                    step = plan.throw(answer)
                    continue
                step = plan.send(step.read(answer))
            if calls[-1] == "state":
                assert step.seconds > 0
    except StopIteration as end:
        return end.value, calls


def test_change_waits_until_supervisor_has_recorded_it():
    states = [
        b'{"now": 10.0, "recorded": 9.0}',
        b'{"now": 10.1, "recorded": 9.9}',
        b'{"now": 10.2, "recorded": 10.05}',
    ]
    assert run(states) == ("changed", ["change", "state", "state", "state"])


@pytest.mark.parametrize(
    "answer",
    [Unavailable("refused"), NotFound("no such route"), b"[]", b"{}", b'{"now": 1.0, "recorded": null}'],
)
def test_change_without_supervisor_record_does_not_wait(answer):
    assert run([answer]) == ("changed", ["change", "state"])


def test_supervisor_that_stops_answering_ends_the_wait():
    assert run([b'{"now": 10.0, "recorded": 9.0}', Unavailable("refused")])[0] == "changed"


def test_wait_for_record_ends_at_its_timeout():
    now = [0.0]

    def clock():
        now[0] += snapshot_sync.RECORD_TIMEOUT_S / 4
        return now[0]

    result, calls = run([b'{"now": 10.0, "recorded": 9.0}'] * 9, clock)
    assert result == "changed"
    assert calls.count("state") == 4
