"""Models in service: those whose failures make the server not ready."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from torchserve_models.client import readiness
from torchserve_models.serving.health.model_states import ObservedVersion
from torchserve_models.serving.health.observations import REGISTRATION_SLACK_S, ServerObservation, Version

CONFIRM_LIMIT_S = 1.0
"""Time after a worker's end to find out from TorchServe whether it was intended, for example by a scale-down."""


class InServiceModels:
    """Names of the models in service, and the ended workers that may belong to a scale-down.

    A model is in service once its default version has been ready, or has taken too long to become ready. All times
    are in `time.monotonic()` seconds.
    """

    def __init__(self) -> None:
        self._was_ready: set[str] = set()
        self._joined: dict[str, float] = {}
        self._ended: dict[int, float] = {}

    def add(self, names: Iterable[str]) -> None:
        """Put models in service."""
        self._was_ready.update(names)

    def keep_only(self, names: Set[str]) -> None:
        """Forget all models that are not in `names`. If registered again, they must first become ready."""
        self._was_ready &= names
        self._joined = {name: at for name, at in self._joined.items() if name in names}

    def note_ended_workers(
        self, previous: ServerObservation, models: Sequence[ObservedVersion], now: float
    ) -> bool:
        """Record the ended worker processes of `models`. Return whether one of them is new."""
        usable = {
            worker.pid for version in previous.versions for worker in version.usable_workers(previous.at)
        }
        # A worker that could not answer before its end was not scaled down: its model stays not ready.
        end_times = {
            worker.pid: self._ended.get(worker.pid, now if worker.pid in usable else 0.0)
            for model in models
            for worker in model.workers
            if worker.pid > 0 and not worker.alive
        }
        has_new = bool(end_times.keys() - self._ended.keys())
        self._ended = end_times
        return has_new

    def mark(
        self, versions: Sequence[Version], described_at: Mapping[str, float], serving_since: float, now: float
    ) -> tuple[Version, ...]:
        """Return the versions with `in_service` set.

        Args:
            versions: All observed versions.
            described_at: Time of each model's latest description by TorchServe, by name.
            serving_since: Start of the front end.
            now: The current time.
        """
        for version in versions:
            self._update(version, now)
        return tuple(
            replace(version, in_service=self._is_in_service(version.model, described_at, serving_since, now))
            for version in versions
        )

    def _update(self, version: Version, now: float) -> None:
        """Put a model in service once it has been ready; scaling it to 0 workers takes it out of service."""
        name = version.model.name
        if not version.model.default:
            return
        if not version.min_workers:
            self._was_ready.discard(name)
            self._joined.pop(name, None)
            return
        self._joined.setdefault(name, now)
        if readiness.version_problem(version.state(now)) is None:
            self._was_ready.add(name)

    def _is_in_service(
        self, model: ObservedVersion, described_at: Mapping[str, float], serving_since: float, now: float
    ) -> bool:
        """Return whether the model's failures count; False while an ended worker may belong to a scale-down."""
        for worker in model.workers:
            ended_at = self._ended.get(worker.pid, 0.0)
            if serving_since <= described_at[model.name] <= ended_at and now - ended_at < CONFIRM_LIMIT_S:
                return False
        limit = model.startup_timeout + REGISTRATION_SLACK_S
        return model.name in self._was_ready or now - self._joined.get(model.name, now) > limit
