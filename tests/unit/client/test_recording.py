"""A change is over when the supervisor would restore it."""

import pytest

from torchserve_models.client import recording
from torchserve_models.client.calls import Pause
from torchserve_models.client.errors import NotFound, Unavailable
from torchserve_models.client.recording import recorded


def change(calls):
    calls.append("change")
    yield Pause(0.0)
    return "changed"


def run(states, clock=lambda: 0.0):
    """The result, and what was done; `states` are the supervisor's answers in turn, or errors."""
    calls = []
    plan = recorded(change(calls), clock)
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


def test_it_waits_until_what_is_recorded_is_younger_than_the_change():
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
def test_without_a_supervisor_that_says_so_it_does_not_wait(answer):
    assert run([answer]) == ("changed", ["change", "state"])


def test_a_supervisor_that_ends_meanwhile():
    assert run([b'{"now": 10.0, "recorded": 9.0}', Unavailable("refused")])[0] == "changed"


def test_the_wait_has_an_end():
    now = [0.0]

    def clock():
        now[0] += recording.LIMIT_S / 4
        return now[0]

    result, calls = run([b'{"now": 10.0, "recorded": 9.0}'] * 9, clock)
    assert result == "changed"
    assert calls.count("state") == 4
