"""Comparison of two engines' speed, with a fake clock."""

import pytest
import torch

from handlers.engines.image import speed_comparison
from handlers.engines.image.speed_comparison import (
    MAX_ROUNDS,
    MAX_SECONDS,
    SLOW_IMAGE_SECONDS,
    measure_speedup,
)

BATCHES = [torch.zeros(size, 1) for size in (1, 4)]


class Clock:
    """The time, which only engines advance."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(speed_comparison.time, "process_time", lambda: self.now)
        monkeypatch.setattr(speed_comparison.time, "monotonic", lambda: self.now)


class TimedEngine:
    """An engine with a constant time per image, and additional times of the first runs of each size."""

    name = "timed"

    def __init__(self, clock, image_s, additional_s=()):
        self._clock, self._image_s, self._additional_s, self.sizes = clock, image_s, additional_s, []

    def run(self, batch):
        run = self.sizes.count(len(batch))
        self.sizes.append(len(batch))
        self._clock.now += self._image_s * len(batch)
        self._clock.now += self._additional_s[run] if run < len(self._additional_s) else 0.0
        return batch


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_speedup_ignores_first_and_disturbed_runs(clock):
    image_s, additional_s = MAX_SECONDS / 1000, (MAX_SECONDS / 10, 0.0, MAX_SECONDS / 10)
    fast, slow = (TimedEngine(clock, seconds, additional_s) for seconds in (image_s, image_s * 3))
    assert measure_speedup(fast, slow, BATCHES) == pytest.approx([3, 3])
    assert measure_speedup(slow, fast, BATCHES) == pytest.approx([1 / 3, 1 / 3])


def test_number_of_rounds_is_limited(clock):
    engine, other = TimedEngine(clock, 1e-9), TimedEngine(clock, 1e-9)
    measure_speedup(engine, other, BATCHES)
    assert engine.sizes == other.sizes == [1] * (1 + MAX_ROUNDS) + [4] * (1 + MAX_ROUNDS)


def test_no_round_begins_after_the_time_limit(clock):
    image_s = MAX_SECONDS / 7
    engine, other = TimedEngine(clock, image_s), TimedEngine(clock, image_s)
    measure_speedup(engine, other, BATCHES)
    assert engine.sizes[:-2] == [1] * 4  # the fourth begins just before the limit
    assert engine.sizes[-2:] == [4, 4]
    assert other.sizes == engine.sizes


def test_fast_engines_are_timed_once_after_a_long_warm_up(clock):
    """The first run of a size also prepares the kernels, in only one engine if the other has run before."""
    engine, other = (
        TimedEngine(clock, MAX_SECONDS / 10),
        TimedEngine(clock, MAX_SECONDS / 5, [MAX_SECONDS / 10]),
    )
    assert measure_speedup(engine, other, BATCHES) == pytest.approx([2, 2])
    assert engine.sizes.count(4) == other.sizes.count(4) == 2


def test_slow_engines_run_a_single_image_once(clock):
    engine, other = TimedEngine(clock, MAX_SECONDS), TimedEngine(clock, MAX_SECONDS * 2)
    assert measure_speedup(engine, other, BATCHES) == pytest.approx([2])
    assert engine.sizes == other.sizes == [1]


def test_one_slow_engine_prevents_the_larger_batch(clock):
    engine, other = TimedEngine(clock, SLOW_IMAGE_SECONDS / 4), TimedEngine(clock, SLOW_IMAGE_SECONDS * 1.1)
    assert measure_speedup(engine, other, BATCHES) == pytest.approx([4.4])
    assert set(engine.sizes) == {1}
