"""The fastest run counts, and the first does not."""

from handlers.core import timing
from handlers.core.timing import seconds_of


def test_the_fastest_run_after_the_first(monkeypatch):
    now = 0.0
    durations = iter([0.01, 0.2, 0.05, 0.1, 9.0])
    ran = []

    def work():
        nonlocal now
        ran.append(next(durations))
        now += ran[-1]

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    assert abs(seconds_of(work) - 0.05) < 1e-9
    assert ran == [0.01, 0.2, 0.05, 0.1]
