"""Snapshot of the served models in the run folder, for restoring them in a restarted front end."""

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torchserve_models.serving.health.model_states import Key, Model

SCHEMA = 1


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
    def of(cls, model: Model) -> "ServedVersion":
        return cls(**{version.name: getattr(model, version.name) for version in fields(cls)})


@dataclass(frozen=True)
class Snapshot:
    """Every registered version of every model, default versions first."""

    versions: tuple[ServedVersion, ...] = ()

    @classmethod
    def of(cls, versions: Iterable[ServedVersion]) -> "Snapshot":
        return cls(
            tuple(sorted(versions, key=lambda version: (not version.default, version.name, version.version)))
        )

    def get(self, key: Key) -> ServedVersion | None:
        return next((version for version in self.versions if version.key == key), None)

    def write(self, path: Path) -> None:
        """Replace the file atomically. Raises OSError."""
        new = path.with_suffix(f".{os.getpid()}.new")
        text = json.dumps(
            {"schema": SCHEMA, "versions": [asdict(version) for version in self.versions]}, indent=2
        )
        try:
            new.write_text(text + "\n", "utf-8")
            new.replace(path)
        except OSError:
            with suppress(OSError):
                new.unlink()
            raise

    @classmethod
    def read(cls, path: Path) -> "Snapshot | None":
        """Read a snapshot; None if it is missing or has another schema."""
        try:
            record: dict[str, Any] = json.loads(path.read_text("utf-8"))
            if record["schema"] != SCHEMA:
                return None
            return cls.of(ServedVersion(**version) for version in record["versions"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


class SnapshotFilter:
    """Turn successive observations of the server into snapshots.

    Versions that `keep` names stay in the snapshot although the server lacks them: those that a
    restart could not load. A default version that a restart could not bring back stays the default in the snapshot
    until the default version is set again: TorchServe makes another version the default by itself.

    Attributes:
        absent: Versions in the snapshot that the server lacks.
        lost_defaults: For models whose default version a restart could not bring back, that version.
    """

    def __init__(
        self, snapshot: Snapshot, keep: Iterable[Key] = (), lost_defaults: Mapping[str, str] | None = None
    ) -> None:
        self.snapshot = snapshot
        self.absent = frozenset(keep)
        self.lost_defaults = dict(lost_defaults or {})

    def update(
        self,
        versions: Sequence[ServedVersion],
        unknown: Collection[str] = (),
        repairing: Collection[Key] = (),
    ) -> Snapshot:
        """Return the snapshot after this observation.

        Args:
            versions: What the server has.
            unknown: Models that could not be described; they stay as they were.
            repairing: Versions whose worker counts the supervisor has changed for a repair; the counts stay as they
                were.
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
        self.snapshot = Snapshot.of([*settled, *absent_versions])
        return self.snapshot

    def note_default(self, name: str) -> None:
        """Record that a client has set the default version of this model."""
        if self.lost_defaults.pop(name, None) is not None:
            self.snapshot = Snapshot.of(
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
