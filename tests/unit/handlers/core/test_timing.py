"""Tests of measuring durations."""

from handlers.core import timing
from handlers.core.timing import measure_seconds


def test_measure_seconds_returns_fastest_run_after_warm_up(monkeypatch):
    now = 0.0
    durations = iter([0.01, 0.2, 0.05, 0.1, 9.0])
    ran = []

    def work():
        nonlocal now
        ran.append(next(durations))
        now += ran[-1]

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    assert abs(measure_seconds(work) - 0.05) < 1e-9
    assert ran == [0.01, 0.2, 0.05, 0.1]
