"""Tests of the schedule of probes and of their results."""

from dataclasses import dataclass, replace

import pytest

from handlers.core.activity import Activity
from torchserve_models.serving.health import probe_scheduler
from torchserve_models.serving.health.model_probe import ProbeResult
from torchserve_models.serving.health.model_states import ObservedVersion, ObservedWorker
from torchserve_models.serving.health.observations import Version
from torchserve_models.serving.health.probe_scheduler import ProbeScheduler

OK, FAILED = ProbeResult(None, 0.1), ProbeResult("HTTP 500", 0.1)
BUSY, UNKNOWN = ProbeResult(None, 0.1, busy=True), ProbeResult(None, 0.0, sent=False)
BEGIN = 1000.0


@dataclass
class FakeProbe:
    model: ObservedVersion
    answer: ProbeResult | None = None


class Scene:
    """Probe scheduler with a simulated clock; every model is idle and last answered at BEGIN."""

    def __init__(self, monkeypatch):
        self.now = BEGIN
        self.probes = []
        self.results = []
        monkeypatch.setattr(probe_scheduler.time, "monotonic", lambda: self.now)
        self.questions = ProbeScheduler(
            self._start_probe, lambda model, result: self.results.append((model, result))
        )
        self.versions = [self.version("a"), self.version("b")]
        self.step()

    def _start_probe(self, model):
        self.probes.append(FakeProbe(model))
        return self.probes[-1]

    def version(self, name, answers=9, pid=7, last_answer=BEGIN, **changes):
        activity = Activity(0.0, 0.0, 0.0, last_answer, 0, 3, answers)
        worker = ObservedWorker("1", "READY", pid, True, 1, activity=activity)
        return Version(
            ObservedVersion(name, "1", True, "m.mar", 1, 1, 120, 60, 0, 10, (worker,)), 1, **changes
        )

    def step(self, seconds=0.0):
        """Return the names of the models that are probed now."""
        self.now += seconds
        before = len(self.probes)
        # The heart of each worker beats.
        beating = []
        for version in self.versions:
            workers = tuple(
                replace(worker, activity=worker.activity and replace(worker.activity, heartbeat=self.now))
                for worker in version.model.workers
            )
            beating.append(replace(version, model=replace(version.model, workers=workers)))
        self.questions.step(beating)
        return [probe.model.name for probe in self.probes[before:]]

    def answer(self, answer, seconds=0.0):
        self.probes[-1].answer = answer
        return self.step(seconds)

    def computing(self, name):
        version = self.version(name)
        (worker,) = version.model.workers
        activity = replace(worker.activity, batch_started=self.now, progress=self.now, batch_requests=1)
        return replace(version, model=replace(version.model, workers=(replace(worker, activity=activity),)))


@pytest.fixture
def scene(monkeypatch):
    return Scene(monkeypatch)


def test_model_that_answers_clients_is_not_probed(scene):
    for _ in range(100):
        scene.versions = [scene.version(name, last_answer=scene.now) for name in "ab"]
        assert scene.step(1.0) == []


def test_idle_model_is_probed_after_long_silence_and_once_at_a_time(scene):
    assert scene.step(29) == []
    assert scene.step(2) == ["a", "b"]  # a slow one holds up no other
    assert scene.step(10) == []  # no answer yet


@pytest.mark.parametrize("busy", ["computing", "queued"])
def test_busy_model_is_never_probed(scene, busy):
    if busy == "computing":
        scene.versions = [scene.computing("a")]
    else:
        version = scene.version("a")
        scene.versions = [replace(version, model=replace(version.model, queue_waiting=1))]
    assert scene.step(40) == []
    assert scene.step(400) == []


def test_new_worker_is_probed_at_once_and_only_once(scene):
    scene.versions = [scene.version("a", answers=0)]
    assert scene.step() == ["a"]
    assert scene.answer(OK) == []
    assert scene.step(5) == []
    scene.versions = [scene.version("a", answers=0, pid=8)]
    assert scene.step() == ["a"]


def test_model_is_unready_after_second_failed_probe(scene):
    scene.versions = scene.versions[:1]
    scene.step(31)
    assert scene.answer(FAILED) == []
    assert scene.questions.problem(("a", "1")) is None
    assert scene.step(1.1) == ["a"]
    scene.answer(FAILED)
    assert scene.questions.problem(("a", "1")) == "HTTP 500"
    assert scene.step(1.1) == []  # the pauses grow
    assert scene.step(1.1) == ["a"]
    scene.answer(OK)
    assert scene.questions.problem(("a", "1")) is None


@pytest.mark.parametrize("change", ["answers", "pid"])
def test_other_answers_or_new_worker_clear_failure(scene, change):
    scene.versions = scene.versions[:1]
    scene.step(31)
    scene.answer(FAILED)
    scene.step(1.1)
    scene.answer(FAILED)
    scene.versions = [scene.version("a", answers=10)]  # may be the answer to the failed probe
    scene.step()
    assert scene.questions.problem(("a", "1"))
    scene.versions = [scene.version("a", **({"answers": 11} if change == "answers" else {"pid": 8}))]
    scene.step()
    assert scene.questions.problem(("a", "1")) is None


@pytest.mark.parametrize("answer", [BUSY, FAILED])
def test_probe_beside_other_requests_is_inconclusive(scene, answer):
    scene.versions = scene.versions[:1]
    for _ in range(3):
        scene.versions = [scene.version("a")]
        scene.step(31)
        scene.versions = [scene.computing("a")]
        scene.answer(answer, 1.0)
    assert scene.questions.problem(("a", "1")) is None
    assert {result for _, result in scene.results} == {"inconclusive"}


def test_model_without_probe_is_judged_by_its_workers(scene):
    scene.versions = [scene.version("a", answers=0)]
    assert scene.questions.needs_answer(("a", "1"))
    scene.step()
    assert scene.answer(UNKNOWN) == []
    assert not scene.questions.needs_answer(("a", "1"))
    assert scene.step(100) == []
    assert scene.results == []


def test_unknown_task_is_looked_up_again(scene):
    scene.versions = [scene.version("a", answers=0)]
    scene.step()
    assert scene.answer(replace(UNKNOWN, problem="its task is unknown")) == []
    assert not scene.questions.needs_answer(("a", "1"))
    assert scene.step(29) == []
    assert scene.step(2) == ["a"]
    scene.answer(FAILED)
    assert scene.questions.needs_answer(("a", "1"))
    assert scene.results == [("a", "failed")]


def test_models_scaled_to_0_are_not_probed(scene):
    scene.versions = [replace(scene.version("a"), min_workers=0)]
    assert scene.step(100) == []


def beside(version, *workers):
    """Return the same version with workers of these process ids and numbers of answers."""
    (worker,) = version.model.workers
    several = tuple(
        replace(
            worker, id=str(pid), pid=pid, activity=replace(worker.activity, heartbeat=BEGIN, answers=answers)
        )
        for pid, answers in workers
    )
    return replace(version, model=replace(version.model, workers=several))


def test_worker_beside_proven_one_counts_at_once(scene):
    questions, version = scene.questions, scene.version("a")
    assert questions.trust_workers(beside(version, (7, 9), (8, 0)), BEGIN) == {7, 8}
    assert questions.trust_workers(beside(version, (8, 0)), BEGIN) == {8}  # 7 was scaled down
    assert questions.trust_workers(beside(version, (8, 0), (9, 0)), BEGIN) == {8, 9}
    assert questions.trust_workers(beside(version), BEGIN) == set()  # all have died
    assert questions.trust_workers(beside(version, (10, 0)), BEGIN) == set()
