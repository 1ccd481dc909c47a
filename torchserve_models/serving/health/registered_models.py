"""Latest description of each registered model, and its age."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torchserve_models.client.readiness_report import Key
from torchserve_models.serving.health import archive_origin
from torchserve_models.serving.health.archive_origin import ArchiveOrigin
from torchserve_models.serving.health.model_poller import PollResult
from torchserve_models.serving.health.model_states import ObservedVersion

UNREACHED_LIMIT_S = 10.0
"""Maximum age of the description of a model that a poll could not reach; strict readiness then fails."""
LOG_UNDESCRIBED_AFTER = 3


@dataclass(frozen=True)
class ModelCatalog:
    """Descriptions of all models at one moment; immutable, because threads share it.

    Attributes:
        models: All versions of the models that have been described.
        undescribed: Names of models without a current description, with the reason; `models` may still contain an
            older one.
        described_at: Time of the request for each model's description, by name, in `time.monotonic()` seconds.
        wall_time: Start of the latest poll, in `time.time()` seconds.
    """

    models: tuple[ObservedVersion, ...] = ()
    undescribed: Mapping[str, str] = field(default_factory=dict)
    described_at: Mapping[str, float] = field(default_factory=dict)
    wall_time: float = 0.0

    @property
    def names(self) -> frozenset[str]:
        """Names of all models that the front end lists."""
        return frozenset({model.name for model in self.models} | self.undescribed.keys())


class RegisteredModels:
    """Registry of the models in TorchServe. `info` receives messages about models that cannot be described.

    Attributes:
        current: Latest descriptions of all models.
    """

    def __init__(self, store: Path, info: Callable[[str], None]) -> None:
        self.current = ModelCatalog()
        self._store = store
        self._info = info
        self._origins: Mapping[Key, ArchiveOrigin | None] = {}
        self._failures: dict[str, int] = {}

    def begin(self, models: Sequence[ObservedVersion], now: float, wall_time: float) -> None:
        """Set the models of a server that has just started."""
        self._note_origins(models)
        self.current = ModelCatalog(tuple(models), {}, {model.name: now for model in models}, wall_time)

    def update(self, poll: PollResult) -> None:
        """Merge the result of a poll; models without a new description keep the previous one."""
        server_description = poll.server_description
        if server_description is None:
            return
        last = self.current
        unanswered = {*server_description.undescribed, *server_description.unreached}
        previous_models = tuple(model for model in last.models if model.name in unanswered)
        described_at = {name: at for name, at in last.described_at.items() if name in unanswered}
        stale = {
            name: reason
            for name, reason in server_description.unreached.items()
            if poll.started - described_at.get(name, 0.0) > UNREACHED_LIMIT_S
        }
        described_at |= {model.name: poll.started for model in server_description.models}
        self._note_origins((*server_description.models, *previous_models))
        undescribed = {**server_description.undescribed, **stale}
        self._note_undescribed(undescribed)
        self.current = ModelCatalog(
            (*server_description.models, *previous_models), undescribed, described_at, poll.wall_time
        )

    def origin(self, model: ObservedVersion) -> ArchiveOrigin | None:
        """Return the model's origin; None if its archive was not in the store when the version was registered."""
        return self._origins.get((model.name, model.version))

    def _note_origins(self, models: Sequence[ObservedVersion]) -> None:
        """Record the origin of new versions, while their archives are still in the store."""
        self._origins = {
            key: self._origins[key]
            if key in self._origins
            else archive_origin.read_archive_origin(self._store, model)
            for model in models
            for key in [(model.name, model.version)]
        }

    def _note_undescribed(self, undescribed: Mapping[str, str]) -> None:
        """Log models that several polls could not describe; a model that is being unregistered fails only once."""
        self._failures = {name: self._failures.get(name, 0) + 1 for name in undescribed}
        for name, count in self._failures.items():
            if count == LOG_UNDESCRIBED_AFTER:
                self._info(f"{name}: TorchServe lists this model but cannot describe it: {undescribed[name]}")
