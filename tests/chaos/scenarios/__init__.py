"""Scenarios: single kinds of load or fault, measured against limits (scripts/chaos --scenario NAME).

Most functions take a running stack, so that tests can call them with smaller numbers.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.chaos.scenarios import bodies, changes, connections, lifecycle, overload
from tests.chaos.scenarios.base import ScenarioResult, table
from tests.chaos.stack import Stack

InfoFunction = Callable[[str], None]
Scenario = Callable[[Path, Path, InfoFunction, float | None], ScenarioResult]
"""Function with run folder, store, message function, and duration of the load in seconds (if adjustable)."""

COMPOSE_HEAP = {"JDK_JAVA_OPTIONS": "-Xmx2g"}
"""Java heap as in deploy/compose.yaml, for servers that do not set the heap themselves."""


def _with_stack(
    measure: Callable[[Stack], ScenarioResult], environment: Mapping[str, str] | None = None
) -> Scenario:
    def run(folder: Path, store: Path, _info: InfoFunction, _seconds: float | None) -> ScenarioResult:
        with Stack(folder, store, environment=environment) as stack:
            return measure(stack)

    return run


def _timed(measure: Callable[[Stack, float], ScenarioResult], default_s: float) -> Scenario:
    def run(folder: Path, store: Path, _info: InfoFunction, seconds: float | None) -> ScenarioResult:
        with Stack(folder, store) as stack:
            return measure(stack, default_s if seconds is None else seconds)

    return run


SCENARIOS: Mapping[str, Scenario] = {
    "slow-uploads": _with_stack(connections.slow_uploads),
    "idle-sockets": _with_stack(connections.idle_sockets),
    "grpc-flood": _with_stack(connections.grpc_flood),
    "large-bodies": _with_stack(bodies.large_bodies, COMPOSE_HEAP),
    "hostile-json": _with_stack(bodies.hostile_json),
    "impatient": _timed(overload.impatient, 60.0),
    "long-batches": _timed(overload.long_batches, 60.0),
    "version-changes": _with_stack(changes.version_changes),
    "scale-downs": _with_stack(changes.scale_downs),
    "registrations": _with_stack(changes.registrations),
    "sigterm": _with_stack(lifecycle.sigterm),
    "restore": lifecycle.restore_all,
}

__all__ = ["SCENARIOS", "ScenarioResult", "Stack", "table"]
