"""The state of the server as JSON: the body of GET /state."""

from dataclasses import asdict
from typing import Any

from torchserve_models.serving.health.model_states import Worker
from torchserve_models.serving.health.readiness import (
    FRONT_END_LIMIT_S,
    Snapshot,
    Version,
    is_idle,
    is_responsive,
    model_problem,
    server_problem,
    unavailable_models,
)


def as_json(snapshot: Snapshot, now: float) -> dict[str, Any]:
    """Return the body of GET /state."""
    problem = server_problem(snapshot, now)
    strict_problem = server_problem(snapshot, now, strict=True)
    phase = snapshot.phase
    running: str = "not ready" if problem else "ready"
    return {
        "phase": running if phase == "running" else phase,
        "ready": problem is None,
        "strict": strict_problem is None,
        "live": now - snapshot.front_end_answered <= FRONT_END_LIMIT_S,
        "reason": problem,
        "strict_reason": strict_problem,
        "updated": snapshot.wall_time,
        "described": snapshot.described,
        "models": [_version_json(snapshot, version, now) for version in snapshot.versions],
        "undescribed": dict(snapshot.undescribed),
        "unavailable": unavailable_models(snapshot),
    }


def _version_json(snapshot: Snapshot, version: Version, now: float) -> dict[str, Any]:
    model = version.model
    problem = model_problem(snapshot, version, now)
    strict_problem = model_problem(snapshot, version, now, strict=True)
    return {
        "name": model.name,
        "version": model.version,
        "default": model.default,
        "archive": model.archive,
        **asdict(version.origin),
        "ready": problem is None,
        "reason": problem,
        "strict": strict_problem is None,
        "strict_reason": strict_problem,
        "min_workers": version.min_workers,
        "max_workers": model.max_workers,
        "queue_waiting": model.queue_waiting,
        "queue_free": model.queue_free,
        "in_flight": version.in_flight,
        "idle": is_idle(version),
        "workers": [_worker_json(worker, now) for worker in model.workers],
    }


def _worker_json(worker: Worker, now: float) -> dict[str, Any]:
    activity = worker.activity
    return {
        "id": worker.id,
        "pid": worker.pid,
        "status": worker.status,
        "alive": worker.alive,
        "responsive": is_responsive(worker, now),
        "reports": activity is not None,
        "computing_s": round(now - activity.batch_started, 3) if activity and activity.is_computing else None,
        "answers": activity.answers if activity else 0,
        "held": activity is not None and activity.held,
        "memory": worker.memory,
    }
