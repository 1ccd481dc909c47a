"""Tests of restart delays: growth, reset after a stable time, and limit."""

from torchserve_models.backoff import Backoff


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_delays_double_up_to_the_maximum():
    clock = Clock()
    backoff = Backoff(initial_delay_s=1, max_delay_s=5, max_restarts=100, clock=clock)
    delays = []
    for _ in range(5):
        delays.append(backoff.next_delay())
        clock.now += delays[-1]
    assert delays == [1, 2, 4, 5, 5]
    assert backoff.count == 5


def test_stable_period_resets_the_delays():
    clock = Clock()
    backoff = Backoff(initial_delay_s=1, stable_s=60, clock=clock)
    assert [backoff.next_delay(), backoff.next_delay()] == [1, 2]
    clock.now += 2 + 59
    assert backoff.next_delay() == 4
    clock.now += 4 + 60
    assert backoff.next_delay() == 1


def test_limit_counts_consecutive_failures():
    clock = Clock()
    backoff = Backoff(max_restarts=3, stable_s=60, clock=clock)
    assert None not in [backoff.next_delay() for _ in range(3)]
    assert backoff.next_delay() is None
    stable = Backoff(max_restarts=3, stable_s=60, clock=clock)
    for _ in range(20):
        clock.now += 60 + stable.next_delay()
    assert stable.count == 20
