"""State of the server as JSON: the body of GET /state."""

from dataclasses import asdict
from typing import Any

from torchserve_models.client.readiness import is_responsive
from torchserve_models.client.readiness_report import VersionReport
from torchserve_models.serving.health.model_states import ObservedWorker
from torchserve_models.serving.health.observations import FRONT_END_LIMIT_S, ServerObservation, Version


def as_json(snapshot: ServerObservation, now: float) -> dict[str, Any]:
    """Return the body of GET /state: readiness, and the observations behind it."""
    report = snapshot.report(now)
    phase = snapshot.phase
    running: str = "ready" if report.reason is None else "not ready"
    return {
        "phase": running if phase == "running" else phase,
        "live": now - snapshot.front_end_answered <= FRONT_END_LIMIT_S,
        **report.as_json(),
        "updated": snapshot.wall_time,
        "described": snapshot.described,
        "models": [
            _version_json(version, verdict, now)
            for version, verdict in zip(snapshot.versions, report.versions, strict=True)
        ],
        "undescribed": dict(snapshot.undescribed),
    }


def _version_json(version: Version, verdict: VersionReport, now: float) -> dict[str, Any]:
    model = version.model
    return {
        **verdict.as_json(),
        "archive": model.archive,
        **asdict(version.origin),
        "max_workers": model.max_workers,
        "queue_waiting": model.queue_waiting,
        "queue_free": model.queue_free,
        "in_flight": version.in_flight,
        "idle": version.is_idle,
        "workers": [_worker_json(worker, now) for worker in model.workers],
    }


def _worker_json(worker: ObservedWorker, now: float) -> dict[str, Any]:
    activity = worker.activity
    return {
        "id": worker.id,
        "pid": worker.pid,
        "status": worker.status,
        "alive": worker.alive,
        "responsive": is_responsive(worker.state(now)),
        "reports": activity is not None,
        "computing_s": round(now - activity.batch_started, 3) if activity and activity.is_computing else None,
        "answers": activity.answers if activity else 0,
        "held": activity is not None and activity.on_hold,
        "memory": worker.memory,
    }
