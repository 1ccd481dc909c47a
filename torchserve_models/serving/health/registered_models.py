"""Latest known description of each registered model, and its age."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torchserve_models.serving.health import archive_origin
from torchserve_models.serving.health.archive_origin import Origin
from torchserve_models.serving.health.model_poller import Poll
from torchserve_models.serving.health.model_states import Key, Model

UNREACHED_LIMIT_S = 10.0
"""Older descriptions count as missing in strict mode."""
LOG_UNDESCRIBED_AFTER = 3


@dataclass(frozen=True)
class Description:
    """Immutable description of all models at one moment, shared between threads.

    Attributes:
        undescribed: Models that cannot be described now, with the reason; `models` may still hold what was known.
        described_at: By name, when the description was asked for, in `time.monotonic()` seconds.
        wall_time: When the latest survey began, in `time.time()` seconds.
    """

    models: tuple[Model, ...] = ()
    undescribed: Mapping[str, str] = field(default_factory=dict)
    described_at: Mapping[str, float] = field(default_factory=dict)
    wall_time: float = 0.0

    @property
    def names(self) -> frozenset[str]:
        """Names of all models that the front end lists."""
        return frozenset({model.name for model in self.models} | self.undescribed.keys())


class RegisteredModels:
    """Registry that keeps `current` up to date. `info` receives messages about models that cannot be described."""

    def __init__(self, store: Path, info: Callable[[str], None]) -> None:
        self.current = Description()
        self._store = store
        self._info = info
        self._origins: Mapping[Key, Origin | None] = {}
        self._failures: dict[str, int] = {}

    def begin(self, models: Sequence[Model], now: float, wall_time: float) -> None:
        """Set the initial models of a server."""
        self._note_origins(models)
        self.current = Description(tuple(models), {}, {model.name: now for model in models}, wall_time)

    def update(self, poll: Poll) -> None:
        """Merge a poll; models without a new description keep the previous one."""
        survey_result = poll.survey
        if survey_result is None:
            return
        last = self.current
        unanswered = {*survey_result.undescribed, *survey_result.unreached}
        previous_models = tuple(model for model in last.models if model.name in unanswered)
        described_at = {name: at for name, at in last.described_at.items() if name in unanswered}
        stale = {
            name: reason
            for name, reason in survey_result.unreached.items()
            if poll.started - described_at.get(name, 0.0) > UNREACHED_LIMIT_S
        }
        described_at |= {model.name: poll.started for model in survey_result.models}
        self._note_origins((*survey_result.models, *previous_models))
        undescribed = {**survey_result.undescribed, **stale}
        self._note_undescribed(undescribed)
        self.current = Description(
            (*survey_result.models, *previous_models), undescribed, described_at, poll.wall_time
        )

    def origin(self, model: Model) -> Origin | None:
        """Return the model's origin; None if its archive was not in the store when the version appeared."""
        return self._origins.get((model.name, model.version))

    def _note_origins(self, models: Sequence[Model]) -> None:
        """Record the origin of new versions, while their archives are still in the store."""
        self._origins = {
            key: self._origins[key]
            if key in self._origins
            else archive_origin.read_archive_origin(self._store, model)
            for model in models
            for key in [(model.name, model.version)]
        }

    def _note_undescribed(self, undescribed: Mapping[str, str]) -> None:
        """Log models that stay undescribed; those just being unregistered are not logged."""
        self._failures = {name: self._failures.get(name, 0) + 1 for name in undescribed}
        for name, count in self._failures.items():
            if count == LOG_UNDESCRIBED_AFTER:
                self._info(f"{name}: TorchServe lists this model and cannot describe it: {undescribed[name]}")
