"""The sequence of a run, with systems that only note what they are asked."""

from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest

from benchmarks import measure
from benchmarks.errors import Unavailable
from benchmarks.systems.base import Served, System, Workplace
from torchserve_models.loadgen import Measurement


class FakeRunning(Served):
    def __init__(self, log, name):
        self.facts = {}
        self._log, self._name = log, name

    def closed(self, connections, seconds):
        self._log.append((self._name, connections))
        return Measurement(seconds, completed=connections, latencies=[0.01])

    def open(self, rate, seconds):
        self._log.append((self._name, rate))
        return Measurement(seconds, completed=1, latencies=[0.01])

    def processes(self) -> list[psutil.Process]:
        return []

    def stop(self):
        self._log.append((self._name, "stopped"))


class FakeSystem(System):
    def __init__(self, log, name, peer, problem=None):
        self.name, self.title, self.peer = name, name, peer
        self._log, self._problem = log, problem

    def start(self, place, generator):
        if self._problem:
            raise Unavailable(self._problem)
        return FakeRunning(self._log, self.name)


def test_systems_take_turns_and_what_cannot_start_is_a_row(monkeypatch):
    monkeypatch.setattr(measure, "_LOOK", 0.01)
    log, said = [], []
    systems = [
        FakeSystem(log, "product-rest", False),
        FakeSystem(log, "a", True),
        FakeSystem(log, "b", True, "no nginx"),
    ]
    schedule = measure.Schedule(concurrency=(1, 8), seconds=1.0, rounds=2)
    place = Workplace(Path(), Path(), (), said.append)
    results = measure.measured(systems, place, schedule, None)
    assert results.rows["b"].problem == "no nginx"
    turns = [entry for entry in log if entry[1] in (1, 8)][4:12]  # after the warm-up
    assert turns == [(name, n) for n in (1, 8) for name in ("product-rest", "a")] * 2
    offered = [entry for entry in log if isinstance(entry[1], float)]
    assert [round(rate, 1) for name, rate in offered if name == "product-rest"] == [2.4, 4.0, 5.6, 7.2, 12.0]
    assert [round(rate, 1) for name, rate in offered if name == "a"] == [4.0, 7.2, 12.0]
    assert [entry for entry in log if entry[1] == "stopped"] == [
        ("product-rest", "stopped"),
        ("a", "stopped"),
    ]


def test_a_failure_in_the_middle_ends_everything(monkeypatch):
    monkeypatch.setattr(measure, "_LOOK", 0.01)
    monkeypatch.setattr(FakeRunning, "open", lambda *_: pytest.fail("no more"))
    log = []
    with pytest.raises(pytest.fail.Exception):
        measure.measured(
            [FakeSystem(log, "product-rest", False)],
            Workplace(Path(), Path(), (), lambda _: None),
            measure.QUICK,
            None,
        )
    assert log[-1] == ("product-rest", "stopped")


def test_one_that_breaks_is_a_row_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(measure, "_LOOK", 0.01)
    log = []
    calm = FakeRunning.closed

    def closed(self, connections, seconds):
        if self._name == "a" and log.count(("a", 32)) == 1:  # warmed up
            raise BrokenProcessPool("gone")
        return calm(self, connections, seconds)

    def stop(self):
        log.append((self._name, "stopped"))
        raise OSError("cannot")

    monkeypatch.setattr(FakeRunning, "closed", closed)
    monkeypatch.setattr(FakeRunning, "stop", stop)
    systems = [FakeSystem(log, name, name != "product-rest") for name in ("a", "product-rest", "b")]
    place = Workplace(Path(), Path(), (), lambda _: None)
    results = measure.measured(systems, place, measure.QUICK, None)
    assert results.rows["a"].problem == "broke down: gone"
    assert not results.rows["a"].closed
    assert results.rows["b"].closed
    assert [name for name, what in log if what == "stopped"] == ["a", "product-rest", "b"]
