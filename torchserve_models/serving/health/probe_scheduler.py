"""Schedule probes of idle models: after a worker's start, and after a long time without answers."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torchserve_models.client.readiness_report import Key
from torchserve_models.serving.health import model_probe
from torchserve_models.serving.health.model_states import ObservedVersion, ObservedWorker
from torchserve_models.serving.health.observations import Version

IDLE_LIMIT_S = 30.0
"""Time without an answer after which a model is probed."""
MAX_FAILURES = 2
"""Number of consecutive failed probes after which a model is not ready."""
INITIAL_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0


class PendingProbe(Protocol):
    """A probe in flight; `answer` is None until it completes."""

    @property
    def answer(self) -> model_probe.ProbeResult | None: ...


@dataclass
class _ProbeHistory:
    """Probe history of one version."""

    answered_at: float
    can_probe: bool = True
    trusted_pids: frozenset[int] = frozenset()
    probed_pids: frozenset[int] = frozenset()
    failures: int = 0
    failed_pids: frozenset[int] = frozenset()
    problem: str = ""
    answers: int = 0
    next_at: float = 0.0


class ProbeScheduler:
    """Probe scheduler. Call `step` often; it never blocks.

    `count` is called with the model's name and the result of each probe, for the metrics.
    """

    def __init__(
        self, send_probe: Callable[[ObservedVersion], PendingProbe], count: Callable[[str, str], None]
    ) -> None:
        self._start_probe = send_probe
        self._count = count
        self._records: dict[Key, _ProbeHistory] = {}
        self._pending: dict[Key, tuple[frozenset[int], PendingProbe]] = {}

    def problem(self, key: Key) -> str | None:
        record = self._records.get(key)
        return record.problem if record and record.failures >= MAX_FAILURES else None

    def needs_answer(self, key: Key) -> bool:
        record = self._records.get(key)
        return record is None or record.can_probe

    def trust_workers(self, version: Version, now: float) -> frozenset[int]:
        """Return the process ids of all usable workers if one of them has answered or was trusted before.

        A version thus stays ready when its only worker that has answered is removed by a scale-down.
        """
        record = self._records.get(version.key)
        if record is None:
            return frozenset()
        usable = version.usable_workers(now)
        pids = frozenset(worker.pid for worker in usable)
        has_proven = any(_has_answered(worker) or worker.pid in record.trusted_pids for worker in usable)
        record.trusted_pids = pids if has_proven else frozenset()
        return record.trusted_pids

    def step(self, versions: Sequence[Version]) -> None:
        """Record completed probes and start those that are due."""
        now = time.monotonic()
        versions_by_key = {version.key: version for version in versions}
        self._records = {key: self._records.get(key) or _ProbeHistory(now) for key in versions_by_key}
        for key, (pids, probe) in list(self._pending.items()):
            if probe.answer is not None:
                del self._pending[key]
                if key in versions_by_key:
                    self._record_result(versions_by_key[key], pids, probe.answer, now)
        for version in versions:
            self._reset_failures(version)
        for version in sorted(versions, key=lambda version: not version.model.default):
            if version.key not in self._pending and self._is_due(version, now):
                self._pending[version.key] = _pids(version, now), self._start_probe(version.model)

    def _is_due(self, version: Version, now: float) -> bool:
        record = self._records[version.key]
        usable = version.usable_workers(now)
        if now < record.next_at or not (version.min_workers and usable and version.is_idle):
            return False
        if not record.can_probe:
            return True
        has_new_worker = any(
            worker.pid not in record.probed_pids and not _has_answered(worker) for worker in usable
        )
        return bool(record.failures) or has_new_worker or now - self._last_answer_time(version) > IDLE_LIMIT_S

    def _last_answer_time(self, version: Version) -> float:
        """Return the time of the version's last answer to any request."""
        answers = (worker.activity.last_answer for worker in version.model.workers if worker.activity)
        return max(self._records[version.key].answered_at, *answers, 0.0)

    def _record_result(
        self, version: Version, pids: frozenset[int], answer: model_probe.ProbeResult, now: float
    ) -> None:
        record = self._records[version.key]
        record.can_probe = answer.sent
        if not answer.sent:  # the task has no probe request, or is not known yet
            record.next_at = math.inf if answer.problem is None else now + MAX_PAUSE_S
            return
        record.next_at = now + INITIAL_PAUSE_S
        if answer.busy or (answer.problem and not version.is_idle):
            self._count(version.model.name, "inconclusive")
        elif answer.problem is None:
            self._count(version.model.name, "answered")
            record.probed_pids = pids
            record.answered_at = now
            record.failures = 0
        else:
            self._count(version.model.name, "failed")
            record.failures += 1
            record.failed_pids = pids
            record.problem = answer.problem
            record.answers = version.answers
            record.next_at = now + min(MAX_PAUSE_S, INITIAL_PAUSE_S * 2 ** (record.failures - 1))

    def _reset_failures(self, version: Version) -> None:
        """Reset the failures after answers to other requests, or if the workers have changed.

        A single new answer does not suffice: it may be the answer to the failed probe.
        """
        record = self._records[version.key]
        pids = frozenset(worker.pid for worker in version.model.workers)
        if record.failures and (version.answers > record.answers + 1 or not record.failed_pids <= pids):
            record.failures, record.next_at = 0, 0.0


def _pids(version: Version, now: float) -> frozenset[int]:
    return frozenset(worker.pid for worker in version.usable_workers(now))


def _has_answered(worker: ObservedWorker) -> bool:
    return worker.activity is not None and worker.activity.answers > 0
