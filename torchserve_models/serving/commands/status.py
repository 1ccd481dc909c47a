"""Status of a run: as a table, as JSON, and as an exit code."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from torchserve_models import client
from torchserve_models.client import Client, Endpoints
from torchserve_models.exit_codes import ExitCode
from torchserve_models.serving.health import archive_origin, observations, state_report
from torchserve_models.serving.health.archive_origin import ArchiveOrigin
from torchserve_models.serving.health.model_states import describe_server
from torchserve_models.serving.health.processes import WorkerProcesses
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.state import RunState

STATE_TIMEOUT_S = 2.0
DESCRIBE_TIMEOUT_S = 3.0

Report = Mapping[str, Any]
"""Body of GET /state (state_report.as_json)."""


@dataclass(frozen=True)
class ServerStatus:
    """Status of the server in one run folder.

    Attributes:
        running: Whether the front end or the supervisor is alive.
        problem: Why the server is not ready or not running; None if it is ready.
        state: Content of the state file; None if the file is missing.
        models: Versions as in GET /state.
    """

    running: bool
    problem: str | None
    state: RunState | None
    models: tuple[Report, ...]

    @property
    def ready(self) -> bool:
        return self.running and self.problem is None

    @property
    def exit_code(self) -> int:
        """Exit code: 0 ready, 1 running but not ready, 3 not running."""
        if not self.running:
            return ExitCode.NOT_RUNNING
        return ExitCode.SUCCESS if self.ready else ExitCode.FAILURE


def ask_supervisor(endpoints: Endpoints) -> Report | None:
    """Return the supervisor's state report; None if it does not answer."""
    try:
        answer = httpx.get(f"{endpoints.health}/state", timeout=STATE_TIMEOUT_S, trust_env=False)
        report = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return None
    return report if isinstance(report, dict) and "models" in report else None


def is_ready(endpoints: Endpoints) -> bool:
    """Return whether the server is ready, as GET /readyz does.

    If the supervisor does not answer, the state of the workers decides.
    """
    report = ask_supervisor(endpoints)
    if report is not None:
        return bool(report["ready"])
    try:
        return bool(survey_models(endpoints)["ready"])
    except client.TorchServeError:
        return False


def survey_models(endpoints: Endpoints, run: RunDir | None = None, store: Path | None = None) -> Report:
    """Build the state report from the management API and the workers' processes.

    Raises client.TorchServeError when the front end does not answer.
    """
    with Client(endpoints=endpoints, timeout=DESCRIBE_TIMEOUT_S, retries=0) as connection:
        server_description = describe_server(connection, DESCRIBE_TIMEOUT_S)
    models = (
        WorkerProcesses(run.activity if run else Path()).observe(server_description.models)
        if run
        else server_description.models
    )
    versions = tuple(
        observations.Version(
            model,
            model.min_workers,
            needs_answer=False,
            origin=(archive_origin.read_archive_origin(store, model) if store else None) or ArchiveOrigin(),
        )
        for model in models
    )
    now, wall_time = time.monotonic(), time.time()
    undescribed = {**server_description.undescribed, **server_description.unreached}
    snapshot = observations.ServerObservation(
        now, wall_time, "running", versions, undescribed, now, wall_time
    )
    return state_report.as_json(snapshot, now)


def get_status(run: RunDir) -> ServerStatus:
    """Return the status reported by the supervisor; without supervisor, by the front end and the operating system."""
    state = RunState.read(run.state)
    if state is None or not _is_running(state):
        return ServerStatus(False, _describe_end(state), state, ())
    if not state.supervisor.alive():
        advice = (
            "run scripts/stop, then scripts/serve" if state.leader is state.supervisor else "it starts again"
        )
        problem = f"the supervisor (process {state.supervisor.pid}) has ended; {advice}"
        return _without_supervisor(run, state, problem)
    report = ask_supervisor(state.endpoints)
    if report is not None:
        return ServerStatus(True, _problem(report), state, tuple(report["models"]))
    if state.phase in ("ready", "not ready"):
        return _without_supervisor(run, state, "the supervisor does not answer")
    starting = "the server is starting" if state.phase == "starting" else f"{state.phase}: {state.message}"
    return ServerStatus(True, starting, state, ())


def _is_running(state: RunState) -> bool:
    """Return whether the front end is alive, or a process that starts, restarts or stops the front end."""
    if state.frontend is not None and state.frontend.alive():
        return True
    return state.phase not in ("stopped", "failed") and state.leader.alive()


def _problem(report: Report) -> str | None:
    if report["ready"]:
        return None
    if report["phase"] in ("starting", "stopping", "restarting"):
        return f"the server is {report['phase']}"
    return str(report["reason"])


def _without_supervisor(run: RunDir, state: RunState, problem: str) -> ServerStatus:
    try:
        report = survey_models(state.endpoints, run, Path(state.store))
    except client.TorchServeError as error:
        return ServerStatus(True, f"{problem}; the front end does not answer: {error}", state, ())
    return ServerStatus(True, problem, state, tuple(report["models"]))


def as_json(status: ServerStatus) -> dict[str, Any]:
    """Return the output of `scripts/status --json`."""
    state = status.state
    return {
        "running": status.running,
        "ready": status.ready,
        "problem": status.problem,
        "phase": state.phase if state else None,
        "endpoints": asdict(state.endpoints) if state and status.running else None,
        "supervisor": state.supervisor.pid if state and state.supervisor.alive() else None,
        "cores": state.cores or None if state and status.running else None,
        "frontend": state.frontend.pid if state and state.frontend and status.running else None,
        "models": [_model_json(model) for model in status.models],
    }


def print_status(status: ServerStatus) -> None:
    """Print the status as a table."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 200
    if status.problem:
        console.print(f"{'not ready' if status.running else 'not running'}: {status.problem}", markup=False)
    if status.state and status.running:
        console.print(_heading(status), markup=False)
    if status.models:
        console.print(_table(status.models))


def _describe_end(state: RunState | None) -> str:
    if state is None:
        return "no server was started in this run folder; start one with scripts/serve"
    if state.phase in ("stopped", "failed"):
        return f"{state.phase} {_format_time(state)}: {state.message}"
    return f"the server's processes were killed; the last phase was {state.phase!r} {_format_time(state)}"


def _format_time(state: RunState) -> str:
    return time.strftime("at %Y-%m-%d %H:%M:%S", time.localtime(state.updated))


def _heading(status: ServerStatus) -> str:
    assert status.state is not None
    endpoints = status.state.endpoints
    word = "ready" if status.ready else "not ready"
    cores = f"; cores: {status.state.cores}" if status.state.cores else ""
    return (
        f"TorchServe is {word}: inference {endpoints.inference}, management {endpoints.management}, "
        f"metrics {endpoints.metrics}, gRPC {endpoints.grpc_inference} and {endpoints.grpc_management}{cores}"
    )


def _table(models: Sequence[Report]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("MODEL", "VERSION", "WEIGHTS", "READY", "WORKERS", "QUEUE", "PROBLEM"):
        table.add_column(column, overflow="fold")
    for model in models:
        workers = ", ".join(
            f"{worker['pid']} {_worker_state(worker)} {worker['memory'] / 2**20:.0f} MB"
            for worker in model["workers"]
        )
        waiting = model["queue_waiting"]
        table.add_row(
            model["name"],
            model["version"] + (" (default)" if model["default"] else ""),
            model["weights"] or "unknown",
            "no" if not model["ready"] else "yes" if model["idle"] else "busy",
            workers or "none",
            f"{waiting} of {waiting + model['queue_free']}",
            model["reason"] or "",
        )
    return table


def _worker_state(worker: Report) -> str:
    if worker["status"] != "READY":
        return "starting"
    return "READY" if worker["responsive"] else "hangs" if worker["alive"] else "lost"


def _model_json(model: Report) -> dict[str, Any]:
    keys = ("name", "version", "default", "archive", "weights", "source", "task", "ready", "strict")
    return {
        **{key: model[key] for key in keys},
        "busy": not model["idle"],
        "problem": model["reason"],
        "min_workers": model["min_workers"],
        "max_workers": model["max_workers"],
        "queue": {"waiting": model["queue_waiting"], "free": model["queue_free"]},
        "in_flight": model["in_flight"],
        "workers": [
            dict(worker) | {"ready": worker["status"] == "READY" and worker["responsive"]}
            for worker in model["workers"]
        ],
    }
