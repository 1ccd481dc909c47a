"""Looks after a running server: are all workers there, do they answer after a restart, must lost ones be replaced."""

import time
from collections.abc import Callable, Iterable

import psutil

import client
from serving import canary
from serving.plan import Plan
from serving.readiness import Model, inspect, replace_lost

_CALM = 5.0
_ALARM = 0.5
_LOST_AFTER = 2.0
_PATIENCE = 2.0  # whoever asks for the end waits for a look that is under way


class Watch:
    """Call `look` several times a second; it is cheap as long as nothing changes.

    The processes of the workers are looked at each time, the server is asked every five seconds, and right after
    a process was found gone. A model is asked a question only when it has a new worker: questions count in the
    metrics.
    """

    def __init__(self, plan: Plan, models: Iterable[Model], say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._next = 0.0
        self._problem: str | None = None
        self._asked: dict[str, frozenset[int]] = {model.name: model.pids for model in models if model.default}
        self._questions: dict[str, canary.Question] = {}
        self._lost_since: dict[tuple[str, str], float] = {}
        self._wanted: dict[tuple[str, str], int] = {}
        self._pids: frozenset[int] = frozenset().union(*self._asked.values())

    def look(self) -> str | None:
        """What is wrong now, for a person; None when every model is ready."""
        gone = [pid for pid in self._pids if not _runs(pid)]
        now = time.monotonic()
        if gone and self._problem is None:
            self._problem = (
                f"worker {gone[0]} has died"  # known now; the server, asked next time, may be slow
            )
        elif gone or now >= self._next:
            self._problem = self._ask_server()
            self._next = now + (_ALARM if self._problem else _CALM)
        return self._problem

    def close(self) -> None:
        """Nothing to end."""

    def _ask_server(self) -> str | None:
        try:
            models = inspect(self._plan.endpoints, timeout=_PATIENCE)
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
            return f"{model.name}: {ready} of {max(1, model.wanted)} workers ready"
        if not model.default or model.pids <= self._asked.get(model.name, frozenset()):
            return None
        return self._question(model)

    def _question(self, model: Model) -> str | None:
        """A model with a new worker counts as ready once it has answered; asked beside, not to hold up others."""
        question = self._questions.get(model.name)
        if question is None:
            timeout = float(model.response_timeout)
            question = canary.Question(self._plan.endpoints, self._plan.store, model, timeout)
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
        """Those lost for good, not just between their end and TorchServe's notice of it; until it has succeeded.

        What the model should have is noted before: while it is being replaced, TorchServe is told other numbers.
        """
        key = (model.name, model.version)
        wanted = self._wanted.get(key, model.wanted)
        missing = wanted - (len(model.workers) - len(model.lost))
        if not (model.lost and missing > 0) and key not in self._wanted:
            self._lost_since.pop(key, None)
            return
        if time.monotonic() - self._lost_since.setdefault(key, time.monotonic()) <= _LOST_AFTER:
            return
        if key in self._wanted and missing <= 0 and model.wanted == wanted:
            del self._wanted[key], self._lost_since[key]
            return
        if key not in self._wanted:
            pids = ", ".join(str(worker.pid) for worker in model.lost)
            self._say(f"{model.name}: worker {pids} is gone, and TorchServe has not noticed; replacing it")
            self._wanted[key] = wanted
        try:
            replace_lost(self._plan.endpoints, model, wanted)
        except client.ServeError as error:
            self._say(f"{model.name}: its worker could not be replaced, trying again: {error}")


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
