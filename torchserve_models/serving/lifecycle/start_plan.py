"""Decide which models a new supervisor starts with: the recorded state, changed by the command line and new archives.

The command line is compared with that of the last start, and NAME.mar in the store with the archive that was last
registered. What is equal was known before, so the state decides. What differs is new, so it takes effect:

- A model that is no longer requested is not restored.
- A requested model that the state lacks is added if its name is on the command line, or if its archive is new.
- A new archive NAME.mar of a model in the state replaces the default version; other versions are restored.

After a crash (`recovering`), nothing was requested, so only archives of models that were never served are added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torchserve_models.serving.archives.manifests import archive_version
from torchserve_models.serving.lifecycle.recorded_state import InvalidState, RecordedState
from torchserve_models.serving.lifecycle.snapshot import ModelSnapshot, ServedVersion
from torchserve_models.serving.lifecycle.version_links import remove_links
from torchserve_models.serving.run_config.run_dir import RunDir


@dataclass(frozen=True)
class StartPlan:
    """What a new supervisor loads.

    Attributes:
        snapshot: Versions to restore.
        new: Models to load from NAME.mar with the settings of the archive.
        archives: RecordedState.archives of the models that are restored or stay removed.
        messages: What differs from the recorded state, for the user.
    """

    snapshot: ModelSnapshot
    new: tuple[str, ...]
    archives: dict[str, str]
    messages: tuple[str, ...] = ()


def read_recorded_state(run: RunDir, store: Path, info: Callable[[str], None]) -> RecordedState | None:
    """Return the recorded state of a run folder; None if there is none, it is invalid, or it has another store.

    An invalid file is renamed, so that it is not overwritten. `info` receives the reason.
    """
    try:
        recorded = RecordedState.read(run.snapshot)
    except InvalidState as error:
        backup = run.snapshot.with_name("snapshot.invalid.json")
        info(
            f"the recorded models in {run.snapshot} cannot be restored: {error}. The file is kept as {backup.name}, "
            "and the requested models are served"
        )
        try:
            run.snapshot.replace(backup)
        except OSError as failure:
            info(f"{run.snapshot} cannot be renamed: {failure.strerror}")
        return None
    if recorded is not None and recorded.store != str(store):
        info(f"the recorded models belong to the store {recorded.store} and are not restored from {store}")
        discard_recorded_state(run)
        remove_links(Path(recorded.store), run)
        return None
    return recorded


def discard_recorded_state(run: RunDir) -> None:
    """Remove the recorded state. Raises OSError."""
    run.snapshot.unlink(missing_ok=True)


def plan_start(
    recorded: RecordedState | None, requested: Sequence[str], store: Path, *, named: bool, recovering: bool
) -> StartPlan:
    """Merge the recorded state with the requested models.

    Args:
        recorded: State of the last run; None to load the requested models only.
        requested: Models to serve.
        store: Folder of the archives.
        named: Whether the user has named the requested models.
        recovering: Whether the last supervisor was killed and this one continues its run.
    """
    if recorded is None or not recorded.versions:
        return StartPlan(ModelSnapshot(), tuple(requested), {})
    dropped = set(recorded.requested) - set(requested)
    versions = [version for version in recorded.versions if version.name not in dropped]
    archives = {name: version for name, version in recorded.archives.items() if name not in dropped}
    messages = [
        f"{name}: not restored, because it is no longer requested"
        for name in sorted(dropped & {version.name for version in recorded.versions})
    ]
    added = []
    present = {version.name for version in versions}
    for name in dict.fromkeys(requested):
        is_new = name not in archives if recovering else _find_new_archive(store, name, archives) is not None
        if name not in present and (is_new or (named and not recovering)):
            added.append(name)
    for name in () if recovering else sorted(present):
        packed = _find_new_archive(store, name, archives)
        if packed is None:
            continue
        if (name, packed) not in {version.key for version in versions}:
            added.append(name)
        versions, replaced = _replace_default(versions, name, packed)
        messages.append(f"{name}: version {packed} was packed since the last start and replaces {replaced}")
    if not versions and not added:
        added = list(requested)
    return StartPlan(ModelSnapshot.of(versions), tuple(added), archives, tuple(messages))


def _find_new_archive(store: Path, name: str, archives: Mapping[str, str]) -> str | None:
    """Return the version of NAME.mar if it was packed after the state was recorded, otherwise None."""
    version = archive_version(store / f"{name}.mar")
    return None if version == archives.get(name) else version


def _replace_default(
    versions: Sequence[ServedVersion], name: str, new_default: str
) -> tuple[list[ServedVersion], str]:
    """Return the versions without the model's old default version, and a description of that version."""
    old = next((version for version in versions if version.name == name and version.default), None)
    remaining = [version for version in versions if version is not old or version.version == new_default]
    return (
        [
            replace(version, default=version.version == new_default) if version.name == name else version
            for version in remaining
        ],
        f"version {old.version}" if old else "no default version",
    )
