"""The supervisor's `GET /state`, what each worker of each version is doing now, and holds. Only draining uses it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchserve_models.client.calls import RestCall, path_of, read_json
from torchserve_models.client.errors import UnexpectedAnswer

TIMEOUT_S = 2.0
"""The supervisor answers from memory."""


@dataclass(frozen=True)
class VersionState:
    """One version's activity. `idle` is None if a worker does not report what it is doing (a custom handler).

    `computing`: by worker id, whether the worker is computing; None if it does not report that. `answers`: requests
    that the workers have answered. `held`: ids of workers that keep a describe call and get no requests.
    """

    idle: bool | None
    in_flight: int
    answers: int
    pids: frozenset[int]
    computing: Mapping[str, bool | None]
    held: frozenset[str] = frozenset()


State = Mapping[tuple[str, str], VersionState]


def state_call() -> RestCall[State]:
    """The state of all versions, by name and version."""
    return RestCall("health", "GET", path_of("state"), _read_state, resend="never", limit=TIMEOUT_S)


def hold_call(pid: int) -> RestCall[None]:
    """Ask the worker to keep its next describe call for some seconds (handlers/core/holding.py)."""
    path = path_of("workers", str(pid), "hold")
    return RestCall("health", "POST", path, lambda _: None, resend="never", limit=TIMEOUT_S)


def _read_state(body: bytes) -> State:
    value = read_json(body)
    try:
        return {(model["name"], model["version"]): _read_version(model) for model in value["models"]}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UnexpectedAnswer(
            f"expected the supervisor's state ({error!r}), got {str(value)[:100]}"
        ) from None


def _read_version(model: Mapping[str, Any]) -> VersionState:
    workers = model["workers"]
    reports = all(_reports(worker) for worker in workers)
    idle = model.get("idle")
    return VersionState(
        idle=bool(idle) if reports and idle is not None else None,
        in_flight=int(model.get("in_flight") or 0),
        answers=sum(int(worker.get("answers") or 0) for worker in workers),
        pids=frozenset(int(worker["pid"]) for worker in workers if worker.get("pid") is not None),
        computing={str(worker["id"]): _is_computing(worker) for worker in workers},
        held=frozenset(str(worker["id"]) for worker in workers if worker.get("held")),
    )


def _reports(worker: Mapping[str, Any]) -> bool:
    """A custom handler need not report its activity; then what its worker does is not known."""
    return bool(worker.get("reports"))


def _is_computing(worker: Mapping[str, Any]) -> bool | None:
    return worker.get("computing_s") is not None if _reports(worker) else None
