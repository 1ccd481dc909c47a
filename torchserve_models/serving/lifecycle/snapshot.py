"""Snapshot of the served models, for restoring them in a restarted server."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from torchserve_models.client.readiness_report import Key
from torchserve_models.serving.health.model_states import ObservedVersion


@dataclass(frozen=True)
class ServedVersion:
    """One registered version: archive, worker counts and batching.

    Delays are in milliseconds, timeouts in seconds.
    """

    name: str
    version: str
    default: bool
    archive: str
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay: int
    response_timeout: int
    startup_timeout: int

    @property
    def key(self) -> Key:
        return self.name, self.version

    @property
    def workers(self) -> tuple[int, int]:
        return self.min_workers, self.max_workers

    @classmethod
    def of(cls, model: ObservedVersion) -> "ServedVersion":
        return cls(**{version.name: getattr(model, version.name) for version in fields(cls)})


@dataclass(frozen=True)
class ModelSnapshot:
    """Every registered version of every model, default versions first."""

    versions: tuple[ServedVersion, ...] = ()

    @classmethod
    def of(cls, versions: Iterable[ServedVersion]) -> "ModelSnapshot":
        return cls(
            tuple(sorted(versions, key=lambda version: (not version.default, version.name, version.version)))
        )

    def get(self, key: Key) -> ServedVersion | None:
        return next((version for version in self.versions if version.key == key), None)


class SnapshotFilter:
    """Filter that updates a snapshot from successive observations of the server.

    Versions in `keep`, which could not be restored, stay in the snapshot although the server does not have them. A
    default version that a restart could not restore stays the default in the snapshot until a client sets another
    one, because TorchServe then selects a default version automatically.

    Attributes:
        snapshot: Latest snapshot.
        absent: Versions in the snapshot that the server does not have.
        lost_defaults: Default version of each model whose default version a restart could not restore.
    """

    def __init__(
        self,
        snapshot: ModelSnapshot,
        keep: Iterable[Key] = (),
        lost_defaults: Mapping[str, str] | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.absent = frozenset(keep)
        self.lost_defaults = dict(lost_defaults or {})

    def update(
        self,
        versions: Sequence[ServedVersion],
        unknown: Collection[str] = (),
        repairing: Collection[Key] = (),
    ) -> ModelSnapshot:
        """Update the snapshot with an observation, and return it.

        Args:
            versions: Versions that the server has.
            unknown: Names of models that could not be described; their versions stay unchanged.
            repairing: Versions whose worker counts a repair has changed; the snapshot keeps the previous counts.
        """
        present = {version.key for version in versions}
        self.absent -= present
        for version in versions:
            if version.default and self.lost_defaults.get(version.name) == version.version:
                del self.lost_defaults[version.name]
        settled = [self._settle(version, version.key in repairing) for version in versions]
        absent_versions = [
            version
            for version in self.snapshot.versions
            if version.key not in present and (version.key in self.absent or version.name in unknown)
        ]
        self.snapshot = ModelSnapshot.of([*settled, *absent_versions])
        return self.snapshot

    def note_default(self, name: str) -> None:
        """Record that a client has set the default version of this model."""
        if self.lost_defaults.pop(name, None) is not None:
            self.snapshot = ModelSnapshot.of(
                replace(version, default=False) if version.name == name else version
                for version in self.snapshot.versions
            )

    def _settle(self, current: ServedVersion, is_repairing: bool) -> ServedVersion:
        if current.name in self.lost_defaults:
            current = replace(current, default=current.version == self.lost_defaults[current.name])
        previous = self.snapshot.get(current.key)
        if previous is None or not is_repairing:
            return current
        return replace(current, min_workers=previous.min_workers, max_workers=previous.max_workers)
