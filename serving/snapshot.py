"""What the server serves, kept in the run folder so that a restarted front end gets the same models again."""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import client

SCHEMA = 1

Key = tuple[str, str]
"""Name and version of a model."""


@dataclass(frozen=True)
class ServedVersion:
    """One registered version: where it came from, how many workers it should have, and its batching.

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
    def of(cls, described: client.Model, default: bool) -> "ServedVersion":
        return cls(
            name=described.name,
            version=described.version,
            default=default,
            archive=Path(described.url).name,
            min_workers=described.min_workers,
            max_workers=described.max_workers,
            batch_size=described.batch_size,
            max_batch_delay=described.max_batch_delay,
            response_timeout=described.response_timeout,
            startup_timeout=described.startup_timeout,
        )


@dataclass(frozen=True)
class Snapshot:
    """Every registered version of every model, default versions first."""

    versions: tuple[ServedVersion, ...] = ()

    @classmethod
    def of(cls, versions: Iterable[ServedVersion]) -> "Snapshot":
        return cls(tuple(sorted(versions, key=lambda each: (not each.default, each.name, each.version))))

    def get(self, key: Key) -> ServedVersion | None:
        return next((each for each in self.versions if each.key == key), None)

    def write(self, path: Path) -> None:
        """Replaces the file at once, so that a reader sees the old snapshot or this one. Raises OSError."""
        new = path.with_suffix(f".{os.getpid()}.new")
        text = json.dumps({"schema": SCHEMA, "versions": [asdict(each) for each in self.versions]}, indent=2)
        try:
            new.write_text(text + "\n", "utf-8")
            new.replace(path)
        except OSError:
            with suppress(OSError):
                new.unlink()
            raise

    @classmethod
    def read(cls, path: Path) -> "Snapshot | None":
        """None where there is none, or one of another schema."""
        try:
            raw: dict[str, Any] = json.loads(path.read_text("utf-8"))
            if raw["schema"] != SCHEMA:
                return None
            return cls.of(ServedVersion(**each) for each in raw["versions"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


class SnapshotFilter:
    """Turns successive looks at the server into snapshots.

    A worker count has to be seen twice before it counts: while a lost worker is replaced, the server is told other
    numbers for a moment. Versions that `keep` names stay in the snapshot although the server lacks them: those that a
    restart could not load.
    """

    def __init__(self, snapshot: Snapshot, keep: Iterable[Key] = ()) -> None:
        self.snapshot = snapshot
        self.absent = frozenset(keep)
        """Versions in the snapshot that the server lacks."""
        self._seen: dict[Key, tuple[int, int]] = {}

    def update(self, versions: Sequence[ServedVersion], unknown: Iterable[str] = ()) -> Snapshot:
        """The snapshot after this look. Models in `unknown` could not be described and stay as they were."""
        unknown = set(unknown)
        settled = [self._settle(each) for each in versions]
        present = {each.key for each in versions}
        self.absent -= present
        kept = [
            each
            for each in self.snapshot.versions
            if each.key not in present and (each.key in self.absent or each.name in unknown)
        ]
        self._seen = {each.key: each.workers for each in versions}
        self.snapshot = Snapshot.of([*settled, *kept])
        return self.snapshot

    def _settle(self, seen: ServedVersion) -> ServedVersion:
        known = self.snapshot.get(seen.key)
        if known is None or self._seen.get(seen.key) == seen.workers:
            return seen
        return replace(seen, min_workers=known.min_workers, max_workers=known.max_workers)
