"""Calls to the supervisor of scripts/serve, or to a gateway: readiness, activity of workers, and holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchserve_models.client.call_types import RestCall, build_path, read_json
from torchserve_models.client.errors import UnexpectedAnswer

ANSWER_TIMEOUT_S = 2.0
"""Timeout of a call to the supervisor, which answers from memory."""


@dataclass(frozen=True)
class VersionActivity:
    """Activity of the workers of one version.

    Attributes:
        idle: Whether no request waits and no worker computes; None if a worker does not report what it is doing (a
            custom handler).
        in_flight: Number of requests in batches that are being computed.
        answers: Number of requests that the workers have answered.
        pids: Process ids of the workers.
        computing: By worker id, whether the worker is computing; None if it does not report that.
        held_workers: Ids of workers that delay a describe call and get no requests.
    """

    idle: bool | None
    in_flight: int
    answers: int
    pids: frozenset[int]
    computing: Mapping[str, bool | None]
    held_workers: frozenset[str] = frozenset()


Activities = Mapping[tuple[str, str], VersionActivity]
"""Activity by name and version of the model."""


def readyz_call(
    model: str | None, version: str | None, strict: bool = False, limit_s: float | None = None
) -> RestCall[None]:
    """Return the call `GET /readyz[/MODEL[/VERSION]]`. Raises Overloaded, with the reason, if not ready.

    Args:
        model: The model's name; the whole server if None.
        version: The model's version; its default version if None.
        strict: Require all configured workers of each version.
        limit_s: Timeout of the call in seconds, if it is shorter than the operation's remaining time.
    """
    names = [name for name in (model, version) if name is not None]
    path = build_path("readyz", *names, query={"strict": True} if strict else None)
    return RestCall("health", "GET", path, _check_ready, resend="never", limit=limit_s)


def activity_call() -> RestCall[Activities]:
    """Return the call for the activity of all versions."""
    return RestCall("health", "GET", build_path("state"), _read_state, resend="never", limit=ANSWER_TIMEOUT_S)


def hold_call(pid: int) -> RestCall[None]:
    """Return the call that makes a worker delay its next describe call (handlers/core/worker_hold.py)."""
    path = build_path("workers", str(pid), "hold")
    return RestCall("health", "POST", path, lambda _: None, resend="never", limit=ANSWER_TIMEOUT_S)


def _check_ready(body: bytes) -> None:
    """Check the body of a 200 answer. Raises UnexpectedAnswer if it is not a readiness report."""
    value: Any = read_json(body)
    if not (isinstance(value, dict) and value.get("ready") is True):
        raise UnexpectedAnswer(f"expected the readiness of a gateway, got {body[:60]!r}")


def _read_state(body: bytes) -> Activities:
    value = read_json(body)
    try:
        return {(model["name"], model["version"]): _read_version(model) for model in value["models"]}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UnexpectedAnswer(
            f"expected the supervisor's state ({error!r}), got {str(value)[:100]}"
        ) from None


def _read_version(model: Mapping[str, Any]) -> VersionActivity:
    workers = model["workers"]
    reports = all(_reports(worker) for worker in workers)
    idle = model.get("idle")
    return VersionActivity(
        idle=bool(idle) if reports and idle is not None else None,
        in_flight=int(model.get("in_flight") or 0),
        answers=sum(int(worker.get("answers") or 0) for worker in workers),
        pids=frozenset(int(worker["pid"]) for worker in workers if worker.get("pid") is not None),
        computing={str(worker["id"]): _is_computing(worker) for worker in workers},
        held_workers=frozenset(str(worker["id"]) for worker in workers if worker.get("held")),
    )


def _reports(worker: Mapping[str, Any]) -> bool:
    """Return whether the worker reports its activity; a custom handler need not."""
    return bool(worker.get("reports"))


def _is_computing(worker: Mapping[str, Any]) -> bool | None:
    return worker.get("computing_s") is not None if _reports(worker) else None
