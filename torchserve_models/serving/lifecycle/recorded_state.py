"""Recorded state of a server: the served models, in a file from which a new supervisor restores them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from torchserve_models.files import write_atomic
from torchserve_models.serving.archives.manifests import archive_version
from torchserve_models.serving.lifecycle.snapshot import ModelSnapshot, ServedVersion

SCHEMA: Final = 1


class InvalidState(Exception):
    """The file cannot be used; `str()` is the reason."""


@dataclass(frozen=True)
class RecordedState:
    """Content of the file.

    Attributes:
        schema: Version of this format. Increase SCHEMA when a field is added, removed or changes its meaning.
        store: Folder of the archives.
        requested: Names of the models that the last start was asked for.
        archives: By model, the version of NAME.mar in the store that was last registered, or that existed when the
            model was first recorded. If NAME.mar has another version, it was packed later.
        versions: The served versions, default versions first.
    """

    schema: Literal[1]
    store: str
    requested: tuple[str, ...]
    archives: Mapping[str, str]
    versions: tuple[ServedVersion, ...]

    def write(self, path: Path) -> None:
        """Replace the file atomically, so that it also survives a power failure. Raises OSError."""
        write_atomic(path, _STATE.dump_json(self, indent=2) + b"\n", sync=True)

    @classmethod
    def read(cls, path: Path) -> "RecordedState | None":
        """Read a state; None if the file does not exist. Raises InvalidState."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidState(f"it cannot be read ({error.strerror})") from error
        try:
            schema = json.loads(content)["schema"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidState("it is damaged, or an earlier release wrote it") from error
        if schema != SCHEMA:
            raise InvalidState(f"its schema version is {schema!r}, and this release reads version {SCHEMA}")
        try:
            return _STATE.validate_json(content, strict=True, extra="forbid")
        except ValidationError as error:
            first = error.errors()[0]
            location = ".".join(map(str, first["loc"]))
            raise InvalidState(f"it is damaged ({location}: {first['msg']})") from error


_STATE = TypeAdapter(RecordedState)


class StateRecorder:
    """Writer of the recorded state of one run."""

    def __init__(
        self, path: Path, store: Path, requested: Sequence[str], archives: Mapping[str, str]
    ) -> None:
        """Create the recorder; `archives` are those of the previous state (RecordedState.archives)."""
        self._path = path
        self._store = store
        self._state = RecordedState(SCHEMA, str(store), tuple(requested), dict(archives), ())
        self._written: ModelSnapshot | None = None

    def record(self, snapshot: ModelSnapshot) -> None:
        """Write the snapshot if it has changed. Raises OSError; the next call then tries again."""
        if snapshot == self._written:
            return
        registered = {version.key for version in snapshot.versions}
        current = {name: archive_version(self._store / f"{name}.mar") for name, _ in registered}
        known = self._state.archives
        archives = dict(known) | {
            name: version
            for name, version in current.items()
            if version and (name not in known or (name, version) in registered)
        }
        self._state = replace(self._state, archives=archives, versions=snapshot.versions)
        self._state.write(self._path)
        self._written = snapshot
