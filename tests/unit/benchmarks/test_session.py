"""The sequence of a run, with fake systems that record their calls."""

from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from benchmarks import session
from benchmarks.cli import QUICK_SCHEDULE
from benchmarks.errors import SystemUnavailable
from benchmarks.report.results import Row
from benchmarks.systems.base import Load, RunContext, System
from torchserve_models.loadgen import Measurement


class FakeLoad(Load):
    def __init__(self, log, name):
        self.facts = {"load": name}
        self._log, self._name = log, name

    def closed(self, connections, seconds):
        self._log.append((self._name, connections))
        return Measurement(seconds, completed=connections, latencies=[0.01])

    def open(self, rate, seconds):
        self._log.append((self._name, rate))
        return Measurement(seconds, completed=1, latencies=[0.01])


class FakeSystem(System):
    def __init__(self, log, *names, is_peer=False, problem=None, broken=()):
        super().__init__(*(Row(name, name.title(), is_peer, has_open_loop=True) for name in names))
        self.log, self.problem, self.broken, self.facts = log, problem, broken, {"engine": "e"}

    def start(self, context):
        self.log.append((self.rows[0].name, "started"))
        if self.problem:
            raise SystemUnavailable(self.problem)

    def stop(self):
        self.log.append((self.rows[0].name, "stopped"))

    def connect(self, row, context):
        if row.name in self.broken:
            raise ConnectionError("no answer")
        return FakeLoad(self.log, row.name)


@pytest.fixture(autouse=True)
def _short_check(monkeypatch):
    monkeypatch.setattr(session, "IDLE_CHECK_S", 0.01)


def measure(*systems, schedule=QUICK_SCHEDULE):
    return session.Session(RunContext(Path(), None, None, lambda _: None), schedule).measure(systems)


def test_systems_take_turns_and_unavailable_system_is_a_row():
    log = []
    peers = FakeSystem(log, "a", is_peer=True), FakeSystem(log, "b", is_peer=True, problem="no nginx")
    schedule = session.Schedule(concurrency=(1, 8), seconds=1.0, rounds=2)
    results = measure(FakeSystem(log, "product-rest"), *peers, schedule=schedule)
    assert results.rows["b"].problem == "no nginx"
    assert results.rows["a"].facts == {"engine": "e", "load": "a"}
    turns = [entry for entry in log if entry[1] in (1, 8)][4:12]  # after the warm-up
    assert turns == [(name, n) for n in (1, 8) for name in ("product-rest", "a")] * 2
    offered = [entry for entry in log if isinstance(entry[1], float)]
    assert [round(rate, 1) for name, rate in offered if name == "product-rest"] == [2.4, 4.0, 5.6, 7.2, 12.0]
    assert [round(rate, 1) for name, rate in offered if name == "a"] == [4.0, 7.2, 12.0]
    assert [name for name, event in log if event == "stopped"] == ["product-rest", "a"]


def test_failed_row_is_left_out_and_the_other_rows_of_its_system_are_measured(monkeypatch):
    log = []
    calm = FakeLoad.closed

    def closed(self, connections, seconds):
        if self._name == "grpc" and ("grpc", 1) in log:
            raise BrokenProcessPool("gone")
        return calm(self, connections, seconds)

    monkeypatch.setattr(FakeLoad, "closed", closed)
    results = measure(FakeSystem(log, "rest", "grpc", "broken", broken=["broken"]))
    assert [row.problem for row in results.rows.values()] == [None, "failed: gone", "no answer"]
    assert [bool(row.closed) for row in results.rows.values()] == [True, False, False]
    assert [event for _, event in log if event in ("started", "stopped")] == ["started", "stopped"]


@pytest.mark.parametrize(
    ("row", "measured", "skipped"),
    [
        (Row("a", "A"), [1], {8: "an answer per client takes 8 s", 32: "an answer per client takes 32 s"}),
        (Row("a", "A", clients=(1, 64)), [1], {}),
        (Row("a", "A", required=(8,)), [1, 8], {32: "an answer per client takes 4 s"}),
        (Row("a", "A", clients=(64,), required=(1, 8, 32)), [1, 8, 32], {}),
    ],
)
def test_load_that_takes_too_long_is_skipped(row, measured, skipped):
    system = FakeSystem([])
    system.rows = [row]
    schedule = session.Schedule(rounds=1, open_seconds=0.0, seconds=1.0, max_answer_seconds=2.0)
    measure(system, schedule=schedule)
    assert (list(row.closed), row.skipped) == (measured, skipped)


def test_time_of_long_answers_is_estimated_from_short_ones(monkeypatch):
    monkeypatch.setattr(FakeLoad, "closed", lambda *_: Measurement(1.0, completed=8, tokens=80))
    system = FakeSystem([])
    system.rows = [Row("s a", "S", tokens_per_answer=10.0), Row("s b", "S", tokens_per_answer=200.0)]
    schedule = session.Schedule(concurrency=(8,), rounds=1, open_seconds=0.0, max_answer_seconds=10.0)
    measure(system, schedule=schedule)
    assert [list(row.closed) for row in system.rows] == [[8], []]
    assert system.rows[1].skipped == {8: "an answer per client takes 20 s"}


def test_error_of_the_benchmark_stops_every_system(monkeypatch):
    def stop(self):
        log.append((self.rows[0].name, "stopped"))
        raise OSError("cannot stop")

    log = []
    monkeypatch.setattr(FakeSystem, "stop", stop)
    monkeypatch.setattr(FakeLoad, "open", lambda *_: pytest.fail("bug"))
    with pytest.raises(pytest.fail.Exception):
        measure(FakeSystem(log, "rest"), FakeSystem(log, "a", is_peer=True))
    assert log[-2:] == [("rest", "stopped"), ("a", "stopped")]
