"""The truth about a run, found out when asked: for people as a table, for programs as JSON, and as an exit code."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import client
from serving import canary, origin
from serving.origin import Origin
from serving.readiness import Model, inspect
from serving.rundir import RunDir
from serving.state import State

_CANARY_TIMEOUT = 10.0
_ORIGIN_TIMEOUT = 5.0


@dataclass(frozen=True)
class Described:
    """A model, where its weights are from, and how it answered just now: None where it was not asked."""

    model: Model
    origin: Origin
    answer: canary.Answer | None

    @property
    def ready(self) -> bool:
        return self.model.ready and (self.answer is None or self.answer.ok)

    @property
    def problem(self) -> str | None:
        if not self.model.ready:
            count = sum(worker.ready for worker in self.model.workers)
            return f"{count} of {max(1, self.model.wanted)} workers ready"
        return self.answer.problem if self.answer else None

    @property
    def busy(self) -> bool:
        """Its workers are there, and so much waits for them that the question was not answered."""
        return self.answer is not None and self.answer.busy


@dataclass(frozen=True)
class Status:
    """`running`: the front end lives. `ready`: every model has its workers, and answered a request just now."""

    running: bool
    problem: str | None
    state: State | None
    models: tuple[Described, ...]

    @property
    def ready(self) -> bool:
        return self.problem is None and bool(self.models) and all(each.ready for each in self.models)

    @property
    def exit_code(self) -> int:
        """0 ready, 1 running but not ready, 3 not running."""
        return 0 if self.ready else 1 if self.running else 3


def look(run: RunDir) -> Status:
    """Asks the system for the processes, the server for its models, and each model with workers a question."""
    state = State.read(run.state)
    if state is None or not (state.frontend and state.frontend.alive()):
        starting = state is not None and state.phase == "starting" and state.supervisor.alive()
        return Status(starting, "it is just starting" if starting else _why_not(state), state, ())
    problem: str | None = None if state.phase in ("ready", "not ready") else f"{state.phase}: {state.message}"
    if not state.supervisor.alive():
        problem = (
            f"its supervisor (process {state.supervisor.pid}) is gone; run scripts/stop and start it again"
        )
    try:
        models = inspect(state.endpoints)
    except client.ServeError as error:
        return Status(True, problem or f"the front end does not answer: {error}", state, ())
    if not models:
        problem = problem or "no model is registered"
    ask = state.phase != "starting"
    with ThreadPoolExecutor(max(1, len(models))) as pool:  # at once, so that one that is slow delays no other
        described = tuple(pool.map(lambda model: _describe(state, model, ask), models))
    return Status(True, problem, state, described)


def as_json(status: Status) -> dict[str, Any]:
    """What `scripts/status --json` prints."""
    state = status.state
    return {
        "running": status.running,
        "ready": status.ready,
        "problem": status.problem,
        "phase": state.phase if state else None,
        "endpoints": asdict(state.endpoints) if state and status.running else None,
        "supervisor": state.supervisor.pid if state and state.supervisor.alive() else None,
        "frontend": state.frontend.pid if state and state.frontend and status.running else None,
        "models": [_model_json(each) for each in status.models],
    }


def show(status: Status) -> None:
    """The same for a person, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 200
    if status.problem:
        console.print(f"{'not ready' if status.running else 'not running'}: {status.problem}", markup=False)
    if status.state and status.running:
        console.print(_heading(status), markup=False)
    if status.models:
        console.print(_table(status.models))


def _why_not(state: State | None) -> str:
    if state is None:
        return "nothing was started here (scripts/serve does it)"
    if state.phase in ("stopped", "failed"):
        return f"{state.phase} {_ago(state)}: {state.message}"
    return f"its processes were killed; it was {state.phase} {_ago(state)}"


def _ago(state: State) -> str:
    return time.strftime("at %Y-%m-%d %H:%M:%S", time.localtime(state.updated))


def _describe(state: State, model: Model, ask: bool) -> Described:
    found = origin.find(state.endpoints, Path(state.store), model, _ORIGIN_TIMEOUT)
    answer = None
    if ask and found != Origin() and model.default and model.ready:
        answer = canary.ask(state.endpoints, model, found, _CANARY_TIMEOUT)
    return Described(model, found or Origin(), answer)


def _heading(status: Status) -> str:
    assert status.state is not None
    at = status.state.endpoints
    word = "ready" if status.ready else "not ready"
    return (
        f"TorchServe is {word}: inference {at.inference}, management {at.management}, metrics {at.metrics}, "
        f"gRPC {at.grpc_inference} and {at.grpc_management}"
    )


def _table(models: Sequence[Described]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("MODEL", "VERSION", "WEIGHTS", "READY", "WORKERS", "QUEUE", "PROBLEM"):
        table.add_column(column, overflow="fold")
    for each in models:
        model = each.model
        workers = ", ".join(
            f"{worker.pid} {'lost' if worker.is_lost else worker.status if worker.ready else 'starting'} "
            f"{worker.memory / 2**20:.0f} MB"
            for worker in model.workers
        )
        table.add_row(
            model.name,
            model.version + (" (default)" if model.default else ""),
            each.origin.weights or "unknown",
            "busy" if each.busy else "yes" if each.ready else "no",
            workers or "none",
            f"{model.queue_waiting} of {model.queue_waiting + model.queue_free}",
            each.problem or "",
        )
    return table


def _model_json(each: Described) -> dict[str, Any]:
    model = each.model
    return {
        "name": model.name,
        "version": model.version,
        "default": model.default,
        "archive": model.archive,
        **asdict(each.origin),
        "ready": each.ready,
        "busy": each.busy,
        "problem": each.problem,
        "answered_in_seconds": round(each.answer.seconds, 3)
        if each.answer and each.answer.ok and not each.busy
        else None,
        "min_workers": model.min_workers,
        "max_workers": model.max_workers,
        "queue": {"waiting": model.queue_waiting, "free": model.queue_free},
        "workers": [asdict(worker) | {"ready": worker.ready} for worker in model.workers],
    }
