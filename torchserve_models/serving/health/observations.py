"""Observations of the server, the input of the readiness rules (client/readiness.py).

This module only computes. health_monitor.py collects the observations; http_server.py and state_report.py publish the
result.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torchserve_models.client import readiness
from torchserve_models.client.readiness import ServerState, VersionState
from torchserve_models.client.readiness_report import Key, ServerReport
from torchserve_models.serving.health.archive_origin import ArchiveOrigin
from torchserve_models.serving.health.model_states import ObservedVersion, ObservedWorker

Phase = Literal["starting", "running", "restarting", "stopping"]

FRONT_END_LIMIT_S = 10.0
"""A front end that has not answered for this long is down; shorter pauses are normal while a model is registered."""
STALE_LIMIT_S = 5.0
"""Older observations are not used."""
REGISTRATION_SLACK_S = 30.0
"""Time after startupTimeout until a registered model that never became ready makes the server not ready."""


@dataclass(frozen=True)
class Version:
    """One version of a model, with all values that determine its readiness.

    Attributes:
        min_workers: Intended minimum number of workers, even while a repair scales the version.
        in_service: Whether the version's failure makes the server not ready: it was ready before, or has taken too
            long to become ready.
        needs_answer: Whether a new worker must answer a request to be usable; False if the task has no probe.
        trusted_pids: Process ids of workers that need not answer first, because they were usable beside a worker that
            had answered.
        probe_failure: Why the latest probes failed; None if they succeeded.
        queue_stalled_s: Seconds that requests have been waiting while every worker was idle.
        origin: Origin of the weights, read from the archive when the version was first observed.
    """

    model: ObservedVersion
    min_workers: int
    in_service: bool = True
    needs_answer: bool = True
    trusted_pids: frozenset[int] = frozenset()
    probe_failure: str | None = None
    queue_stalled_s: float = 0.0
    origin: ArchiveOrigin = field(default_factory=ArchiveOrigin)

    @property
    def key(self) -> Key:
        return self.model.name, self.model.version

    @property
    def in_flight(self) -> int:
        """Number of requests in batches being computed; 1 for a worker that does not report its batch size."""
        return sum(
            worker.activity.batch_requests if worker.activity else 1
            for worker in self.model.workers
            if worker.computing
        )

    @property
    def answers(self) -> int:
        return sum(worker.activity.answers for worker in self.model.workers if worker.activity)

    @property
    def is_idle(self) -> bool:
        """Whether no request waits and no worker is computing."""
        return self.model.queue_waiting == 0 and not any(worker.computing for worker in self.model.workers)

    def usable_workers(self, now: float) -> list[ObservedWorker]:
        """Return the workers that can answer at `now`, in `time.monotonic()` seconds."""
        timeout_s = self.model.response_timeout
        return [
            worker
            for worker in self.model.workers
            if readiness.worker_problem(worker.state(now), timeout_s) is None
        ]

    def state(self, now: float) -> VersionState:
        """Return the version's state for readiness checks at `now`, in `time.monotonic()` seconds."""
        workers = tuple(
            replace(worker.state(now), proven=self._is_proven(worker)) for worker in self.model.workers
        )
        return replace(
            self.model.state(now),
            workers=workers,
            min_workers=self.min_workers,
            queue_stalled_s=self.queue_stalled_s,
            probe_failure=self.probe_failure,
            in_service=self.in_service,
        )

    def _is_proven(self, worker: ObservedWorker) -> bool:
        """Return whether the worker has answered a request, is trusted, or need not answer or report."""
        if not self.needs_answer or worker.activity is None:
            return True
        return worker.activity.answers > 0 or worker.pid in self.trusted_pids


@dataclass(frozen=True)
class ServerObservation:
    """Observation of the server at one moment.

    Times are `time.monotonic()` seconds, except `wall_time` and `described` (`time.time()`).

    Attributes:
        undescribed: Names of models that TorchServe lists but cannot describe, with the reason.
        front_end_answered: Time of the management API's last answer.
        described: Time of the latest poll whose descriptions are used.
        missing: Versions that a restart of the front end could not reload, with the reason.
        lost_defaults: Default version of each model whose default version a restart could not restore.
    """

    at: float
    wall_time: float
    phase: Phase = "starting"
    versions: tuple[Version, ...] = ()
    undescribed: Mapping[str, str] = field(default_factory=dict)
    front_end_answered: float = 0.0
    described: float = 0.0
    missing: Mapping[Key, str] = field(default_factory=dict)
    lost_defaults: Mapping[str, str] = field(default_factory=dict)

    def report(self, now: float) -> ServerReport:
        """Return the readiness of the server and its models at `now`."""
        return readiness.judge(
            ServerState(
                [version.state(now) for version in self.versions],
                self.undescribed,
                self.missing,
                self.lost_defaults,
                starting=self.phase == "starting",
                front_end_problem=self._front_end_problem(now),
            )
        )

    def _front_end_problem(self, now: float) -> str | None:
        if self.phase == "starting":
            return None
        if self.phase != "running":
            is_stopping = self.phase == "stopping"
            return "the server is stopping" if is_stopping else "the front end is being restarted"
        if now - self.at > STALE_LIMIT_S:
            return f"the supervisor has observed nothing for {now - self.at:.0f} s"
        silent_s = now - self.front_end_answered
        if silent_s > FRONT_END_LIMIT_S:
            return f"the front end has not answered for {silent_s:.0f} s"
        return None
