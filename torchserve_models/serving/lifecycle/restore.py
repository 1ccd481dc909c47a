"""Restore a snapshot in a new front end: models, versions, default versions and worker counts."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from torchserve_models import client
from torchserve_models.client import Client, Endpoints
from torchserve_models.client.readiness_report import Key
from torchserve_models.serving.archives.file_links import link_or_copy
from torchserve_models.serving.health.model_states import describe_server
from torchserve_models.serving.lifecycle.snapshot import ModelSnapshot, ServedVersion
from torchserve_models.serving.lifecycle.version_links import link_name

_TIMEOUT_S = 5.0
_DESCRIBE_TIMEOUT_S = 20.0
_ATTEMPTS = 5
_ATTEMPT_INTERVAL_S = 1.0
_ABANDONED_AFTER_S = 600.0


@dataclass(frozen=True)
class VersionToLoad:
    """One version to load from the file `source`, which is named `archive` in the store."""

    served: ServedVersion
    source: Path
    archive: str


@dataclass(frozen=True)
class RestorePlan:
    """Versions to reload, in order, and versions that cannot be reloaded, with the reason.

    The models `new` are loaded from NAME.mar with the settings of the archive. They come first, because TorchServe
    makes a model's first version the default version.
    """

    loads: tuple[VersionToLoad, ...]
    missing: Mapping[Key, str]
    new: tuple[str, ...] = ()

    def settings(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the configuration of the front end.

        TorchServe loads these archives before it listens, so no request fails because a model is not registered yet.
        The `models` setting applies to values that an archive's model-config.yaml does not set.
        """
        models: dict[str, dict[str, dict[str, int | bool]]] = json.loads(settings.get("models") or "{}")
        for load in self.loads:
            served = load.served
            models.setdefault(served.name, {}).setdefault(served.version, {}).update(
                defaultVersion=served.default,
                minWorkers=served.min_workers,
                maxWorkers=served.max_workers,
                batchSize=served.batch_size,
                maxBatchDelay=served.max_batch_delay,
                responseTimeout=served.response_timeout,
                startupTimeout=served.startup_timeout,
            )
        archives = [(name, f"{name}.mar") for name in self.new]
        archives += [(load.served.name, load.archive) for load in self.loads]
        load_models = ",".join(f"{name}={archive}" for name, archive in archives)
        return {**settings, "load_models": load_models, "models": json.dumps(models)}


def plan_restore(
    snapshot: ModelSnapshot,
    store: Path,
    find: Callable[[ServedVersion], Path | None],
    new: tuple[str, ...] = (),
) -> RestorePlan:
    """Return the plan for restoring `snapshot` and loading the models `new`.

    `find` returns the archive of a version, or None. TorchServe makes a model's first version the default version.
    """
    loads: list[VersionToLoad] = []
    missing: dict[Key, str] = {}
    for served in snapshot.versions:
        source = find(served)
        if any(mark in served.name for mark in ",="):
            missing[served.key] = (
                "its name contains ',' or '=', which TorchServe's load_models does not support"
            )
        elif source is None:
            missing[served.key] = f"its archive is no longer in {store}"
        elif source.parent == store:
            loads.append(VersionToLoad(served, source, source.name))
        else:
            loads.append(VersionToLoad(served, source, f".{link_name(served.key)}"))
    return RestorePlan(tuple(loads), missing, new)


@contextmanager
def archives_in_store(plan: RestorePlan, store: Path) -> Iterator[dict[Key, str]]:
    """Link archives from other folders into the store while TorchServe loads them; it reads only from the store.

    Yields:
        The versions that could not be linked, for example into a read-only store, with the reason.
    """
    _remove_abandoned_links(store)
    links: list[Path] = []
    failed: dict[Key, str] = {}
    try:
        for load in plan.loads:
            if load.source.parent == store:
                continue
            link = store / load.archive
            try:
                with suppress(FileNotFoundError):
                    link.unlink()  # left behind by a supervisor that was killed
                link_or_copy(load.source, link)
                links.append(link)
            except OSError as error:
                failed[load.served.key] = f"its archive cannot be linked into {store}: {error.strerror}"
        yield failed
    finally:
        for link in links:
            with suppress(OSError):
                link.unlink()


def _remove_abandoned_links(store: Path) -> None:
    """Remove links that killed supervisors left; adding or removing a link changes the ctime of an archive."""
    for path in store.glob(".*@*.mar"):
        with suppress(OSError):
            if time.time() - path.stat().st_ctime > _ABANDONED_AFTER_S:
                path.unlink()


def restore_workers(
    endpoints: Endpoints, served_versions: Sequence[ServedVersion], pause: Callable[[float], None]
) -> dict[Key, str]:
    """Set worker counts and default versions that differ; return the versions that failed, with the reason.

    Call this right after the start, while workers still load: scaling down then interrupts no request. The front end
    is slow at that time, so there are several attempts.

    Args:
        endpoints: Addresses of the server.
        served_versions: Versions as they were before the restart.
        pause: Called with the seconds to wait between attempts, and with 0 before each version, which may take
            seconds. It may raise an exception to end the restart.

    Raises:
        client.TorchServeError: The front end did not answer in any attempt.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            failed = _restore_workers_once(endpoints, served_versions, pause)
        except client.TorchServeError:
            if attempt == _ATTEMPTS:
                raise
            failed = {}
        else:
            if not failed or attempt == _ATTEMPTS:
                return failed
        pause(_ATTEMPT_INTERVAL_S)
    return failed


def _restore_workers_once(
    endpoints: Endpoints, served_versions: Sequence[ServedVersion], pause: Callable[[float], None]
) -> dict[Key, str]:
    failed: dict[Key, str] = {}
    with Client(endpoints=endpoints, timeout=_TIMEOUT_S, retries=0) as connection:
        server_description = describe_server(connection, _DESCRIBE_TIMEOUT_S)
        present = {version.key: version for version in map(ServedVersion.of, server_description.models)}
        for served in served_versions:
            pause(0.0)
            current = present.get(served.key)
            if current is None:
                is_unknown = (
                    served.name in server_description.undescribed
                    or served.name in server_description.unreached
                )
                failed[served.key] = (
                    "TorchServe cannot describe the model"
                    if is_unknown
                    else "TorchServe did not load its archive"
                )
                continue
            try:
                if current.workers != served.workers:
                    connection.scale(
                        served.name, served.min_workers, served.max_workers, served.version, synchronous=False
                    )
                if served.default and not current.default:
                    connection.set_default(served.name, served.version, force=True)
            except client.TorchServeError as error:
                failed[served.key] = str(error)
    return failed
