"""Looks after a running server: are all workers there, do they answer after a restart, must lost ones be replaced."""

import time
from collections.abc import Callable, Iterable

import psutil

import client
from serving import canary
from serving.plan import Plan
from serving.readiness import Model, inspect, provenance, replace_lost

_CALM = 5.0
_ALARM = 0.5
_LOST_AFTER = 2.0


class Watch:
    """Call `look` several times a second; it is cheap as long as nothing changes.

    The processes of the workers are looked at each time, the server is asked every five seconds, and at once when a
    process is gone. A model is asked a question only when it has a new worker: questions count in the metrics.
    """

    def __init__(self, plan: Plan, models: Iterable[Model], say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._next = 0.0
        self._problem: str | None = None
        self._asked: dict[str, frozenset[int]] = {model.name: model.pids for model in models if model.default}
        self._questions: dict[str, canary.Question] = {}
        self._lost_since: dict[int, float] = {}
        self._pids: frozenset[int] = frozenset().union(*self._asked.values())

    def look(self) -> str | None:
        """What is wrong now, for a person; None when every model is ready."""
        gone = [pid for pid in self._pids if not _runs(pid)]
        now = time.monotonic()
        if gone or now >= self._next:
            self._problem = self._ask_server()
            if gone and self._problem is None:
                self._problem = f"worker {gone[0]} has died"
            self._next = now + (_ALARM if self._problem else _CALM)
        return self._problem

    def _ask_server(self) -> str | None:
        try:
            models = inspect(self._plan.endpoints)
        except client.ServeError as error:
            return f"the front end does not answer: {error}"
        if not models:
            return "no model is registered"
        self._pids = frozenset().union(*(model.pids for model in models))
        for model in models:
            self._replace_lost(model)
        problems = [problem for model in models if (problem := self._problem_of(model))]
        return "; ".join(problems) or None

    def _problem_of(self, model: Model) -> str | None:
        if not model.ready:
            ready = sum(worker.ready for worker in model.workers)
            return f"{model.name}: {ready} of {max(1, model.min_workers)} workers ready"
        if not model.default or model.pids <= self._asked.get(model.name, frozenset()):
            return None
        return self._question(model)

    def _question(self, model: Model) -> str | None:
        """A model with a new worker counts as ready once it has answered; asked beside, not to hold up others."""
        question = self._questions.get(model.name)
        if question is None:
            made = provenance(self._plan.store, model.archive)
            task = made.task if made else None
            timeout = float(model.response_timeout)
            question = canary.Question(self._plan.endpoints, model.name, task, timeout)
            self._questions[model.name] = question
        answer = question.answer
        if answer is None:
            return f"{model.name}: its new worker has not answered yet"
        del self._questions[model.name]
        if answer.ok:
            self._asked[model.name] = model.pids
            return None
        return f"{model.name}: does not answer: {answer.problem}"

    def _replace_lost(self, model: Model) -> None:
        """Lost for good, not just between its end and TorchServe's notice of it."""
        now = time.monotonic()
        lost = {worker.pid for worker in model.workers if worker.is_lost}
        since = [self._lost_since.setdefault(pid, now) for pid in lost]
        if since and now - min(since) > _LOST_AFTER:
            for pid in lost:
                self._lost_since[pid] = float("inf")  # replaced once; it may stay in TorchServe's list
            try:
                replace_lost(self._plan.endpoints, model, self._say)
            except client.ServeError as error:
                self._say(f"{model.name}: its worker could not be replaced: {error}")


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
