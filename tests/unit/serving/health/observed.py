"""Observations of a server with one model, for tests of readiness."""

from dataclasses import replace
from typing import Any

from handlers.core.activity import Activity
from torchserve_models.serving.health.model_states import ObservedVersion, ObservedWorker
from torchserve_models.serving.health.observations import ServerObservation, Version

NOW = 5000.0
IDLE = Activity(NOW - 0.3, 0.0, NOW - 50, NOW - 50, 0, 3, 9)
COMPUTING = replace(IDLE, batch_started=NOW - 19, progress=NOW - 2, batch_requests=4)
NEW = replace(IDLE, answers=0, batches=0, last_answer=0.0)
READY = ObservedWorker("1", "READY", 7, True, 1, activity=IDLE)
CUSTOM = replace(READY, activity=None)
LOADING = ObservedWorker("2", "UNLOADING", 8, True, 1)
STARTING = ObservedWorker("2", "UNLOADING", -1, False, 0)
DEAD = replace(READY, alive=False, activity=None)
MODEL = ObservedVersion("m", "1", True, "m.mar", 1, 1, 120, 60, 0, 10, (READY,))
SERVING = Version(MODEL, 1)


def workers(*present: ObservedWorker, **changes: Any) -> Version:
    """Return the version with these workers."""
    return replace(SERVING, model=replace(MODEL, workers=present), **changes)


def snapshot(*versions: Version, **changes: Any) -> ServerObservation:
    """Return a running server's observation at NOW."""
    fields = {"phase": "running", "front_end_answered": NOW - 0.5} | changes
    return ServerObservation(NOW, 1.7e9, versions=versions, **fields)
