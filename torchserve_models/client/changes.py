"""Changes through the management API that lose no request: each a plan of calls (see calls.py).

TorchServe's own waiting (`synchronous`) is not used: over REST it blocks a network thread, and with it a quarter of
all connections, for as long as a worker loads. Workers are ended after they have been drained (drain.py). Registering
goes over gRPC even for a REST client, because TorchServe unpacks the archive of a REST call on a network thread, too;
where its gRPC management cannot be reached, it goes over REST.
"""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from torchserve_models.client.calls import Pause, Plan
from torchserve_models.client.drain import Drain
from torchserve_models.client.endpoints import Endpoints, has_grpc_management
from torchserve_models.client.errors import (
    Conflict,
    InternalError,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServerError,
    Timeout,
    TorchServeError,
    Unavailable,
)
from torchserve_models.client.management import GrpcManagement, Management, RestManagement
from torchserve_models.client.names import check_name, is_addressable, is_name
from torchserve_models.client.probes import readyz_call
from torchserve_models.client.results import Model

POLL = 0.2
"""Seconds between two looks at workers that start or end."""

ANSWER_LIMIT_S = 2.0
"""For the first answer of a version that is to be the default; an idle one gives it within a second."""

SCALE_ATTEMPTS = 3
"""TorchServe answers 500 when it ends a worker in the moment in which that one fails its batch."""

_SUFFIX = re.compile(r"\.(mar|war|zip|tgz|tar\.gz)$", re.IGNORECASE)


def check_archive(archive: str, model_name: str | None) -> None:
    """Check the name under which the archive will be registered. Raises InvalidRequest.

    Without `model_name` the archive itself names the model, by convention as its file.
    """
    if not archive:
        raise InvalidRequest("the name of the archive is empty")
    check_name(_stem(archive) if model_name is None else model_name)


def _stem(archive: str) -> str:
    return _SUFFIX.sub("", PurePosixPath(urlsplit(archive).path).name)


class Changes:
    """The management operations of one server, over REST or over gRPC."""

    def __init__(self, endpoints: Endpoints, over_grpc: bool) -> None:
        self._management: Management = GrpcManagement() if over_grpc else RestManagement()
        self._over_grpc = over_grpc
        self._has_grpc = over_grpc or has_grpc_management(endpoints)

    def register(self, archive: str, fields: Mapping[str, Any], wait: bool) -> Plan[str]:
        """Register an archive of the model store; `wait` until its workers are ready."""
        check_archive(archive, fields.get("model_name"))
        described = yield from self._register(archive, fields)
        if described is None:
            return f"{archive} was registered; which model it is cannot be told from the list of models"
        if wait:
            yield from self._until_loaded(described)
        return (
            f'Model "{described.name}" Version: {described.version} registered with {described.min_workers} '
            "initial workers"
        )

    def scale(self, model: str, version: str | None, workers: tuple[int, int], wait: bool) -> Plan[str]:
        """Change the number of workers without draining: (minimum, maximum)."""
        sentence: str = yield self._management.scale(model, version, *workers)
        if wait:
            yield from self._until_ready(model, version)
            return _scaled(model, workers)
        return sentence

    def scale_drained(
        self, model: str, version: str | None, workers: tuple[int, int], drain_timeout: float | None
    ) -> Plan[str]:
        """Change the number of workers; end surplus ones one by one, each while it has no request."""
        least, most = workers
        self._management.scale(model, version, least, most)  # raises for what cannot be sent
        described: Model = yield self._management.describe_one(model, version)
        drain = Drain(self._management, described, drain_timeout)
        if most == 0 and described.workers:
            yield from drain.until_empty()
        else:
            for count in range(len(described.workers) - 1, most, -1):
                yield from self._end_one(described, drain, (min(least, count), count))
        if 0 < most < len(described.workers):
            yield from self._end_one(described, drain, workers)
        else:
            yield from self._scale_to(described, workers)
        yield from self._until_ready(model, version)
        return _scaled(model, workers)

    def set_default(self, model: str, version: str, force: bool) -> Plan[str]:
        """Choose the version that answers; refuse one that cannot answer. Raises Conflict."""
        if not force:
            described: Model = yield self._management.describe_one(model, version)
            if not any(worker.ready for worker in described.workers):
                raise Conflict(
                    f"{model} {version} has no worker that is ready; the default version was not changed "
                    "(scale it up first, or use --force)"
                )
            yield from self._until_answered(model, version)
        sentence: str = yield self._management.set_default(model, version)
        return sentence

    def unregister(
        self, model: str, version: str | None, drain_timeout: float | None, force: bool
    ) -> Plan[str]:
        """Remove a version, drained unless `force`. Names that cannot be in a URL go over gRPC."""
        management = self._management_for(model, version)
        if not force:
            described: Model = yield management.describe_one(model, version)
            yield from self._check_removable(management, described)
            yield from Drain(management, described, drain_timeout).until_empty()
        sentence: str = yield management.unregister(model, version)
        return sentence

    def replace(
        self, model: str, archive: str, workers: int | None, drain_timeout: float | None
    ) -> Plan[str]:
        """Register a new version beside the default one, make it the default, drain and remove the old one."""
        check_name(model)
        old: Model = yield self._management.describe_one(model, None)
        new = yield from self._register(archive, {"model_name": model, "initial_workers": workers})
        if new is None:
            raise Conflict(f"{archive} was registered, but no new version of {model} is listed")
        yield from self._until_loaded(new)
        wanted = workers or max(old.min_workers, new.min_workers)
        if wanted != new.min_workers:
            yield from self.scale(model, new.version, (wanted, max(wanted, new.max_workers)), wait=True)
        yield from self.set_default(model, new.version, force=False)
        try:
            yield from self.unregister(model, old.version, drain_timeout, force=False)
        except Timeout as error:
            raise Timeout(
                f"{model} {new.version} is the default now, but the old version is still registered: {error.message}"
            ) from error
        return f"{model}: version {new.version} replaces {old.version}"

    def _register(self, archive: str, fields: Mapping[str, Any]) -> Plan[Model | None]:
        """The new version. TorchServe does not say which one it is, so that the list is compared.

        Raises InvalidRequest for an archive with an invalid name or version, which is removed again.
        """
        name = fields.get("model_name")
        before = yield from self._versions(name)
        try:
            yield from self._send_register({"url": archive, **fields})
        except InternalError as error:
            # TorchServe's gRPC says nothing of a version that is registered already.
            if "gave no reason" not in error.message:
                raise
            if not self._over_grpc:
                yield self._management.register({"url": archive, **fields})  # REST names the reason
            else:
                raise _conflict(before, archive, name) or error from None
        after = yield from self._versions(name)
        new = [key for key in after if key not in before]
        new = [key for key in new if after[key] == archive] or new
        if not new:
            return None
        model, version = new[0]
        management = self._management_for(model, version or None)
        described: Model = yield management.describe_one(model, version or None)
        if not (is_name(described.name) and is_name(described.version)):
            yield self._management_for(described.name, described.version).unregister(
                described.name, described.version
            )
            check_name(described.name)
            check_name(described.version)
        return described

    def _send_register(self, fields: Mapping[str, Any]) -> Plan[str]:
        if self._has_grpc and not self._over_grpc:
            try:
                answer: str = yield GrpcManagement().register(fields)
                return answer
            except Unavailable as error:
                if error.sent:
                    raise
        answer = yield self._management.register(fields)
        return answer

    def _management_for(self, *names: str | None) -> Management:
        """Names that cannot be in a URL go over gRPC."""
        is_rest_enough = all(name is None or is_addressable(name) for name in names)
        return self._management if is_rest_enough else GrpcManagement()

    def _versions(self, model: str | None) -> Plan[dict[tuple[str, str], str]]:
        """The archive of each name and version: of one model, or of all; none for a name that cannot be in a URL."""
        names = [model] if model else [entry.name for entry in (yield from self._management.list_models())]
        found: dict[tuple[str, str], str] = {}
        for name in names:
            if not is_addressable(name):
                found[name, ""] = ""
                continue
            try:
                versions: list[Model] = yield self._management.describe(name, "all", False)
            except (NotFound, ServerError):
                continue
            found |= {(name, each.version): each.url for each in versions}
        return found

    def _check_removable(self, management: Management, described: Model) -> Plan[None]:
        """TorchServe removes the default version only as the last one; do not drain it in vain."""
        default: Model = yield management.describe_one(described.name, None)
        if default.version == described.version:
            versions: list[Model] = yield management.describe(described.name, "all", False)
            if len(versions) > 1:
                raise Conflict(
                    f"{described.name} {described.version} is the default version, and there are others; choose "
                    "another default first (set-default)"
                )

    def _end_one(self, described: Model, drain: Drain, workers: tuple[int, int]) -> Plan[None]:
        """TorchServe ends the last worker of its list."""
        current: Model = yield self._management.describe_one(described.name, described.version)
        if current.workers:
            yield from drain.until_worker_held(current.workers[-1].id)
        yield from self._scale_to(described, workers)

    def _scale_to(self, described: Model, workers: tuple[int, int]) -> Plan[None]:
        """Repeat the call where TorchServe failed in the middle of it."""
        for attempt in range(SCALE_ATTEMPTS):
            try:
                yield self._management.scale(described.name, described.version, *workers)
                return
            except InternalError:
                if attempt == SCALE_ATTEMPTS - 1:
                    raise
                yield Pause(POLL)

    def _until_loaded(self, registered: Model) -> Plan[None]:
        """Wait for the first workers of a version; remove it again if one of them ends while it loads."""
        pids: dict[str, set[int]] = {}

        def check(described: Model) -> None:
            for worker in described.workers:
                pids.setdefault(worker.id, set()).add(worker.pid)
                if not worker.ready and len(pids[worker.id] - {-1}) > 1:
                    raise _WorkerFailed

        name, version = registered.name, registered.version
        try:
            yield from self._until_ready(name, version, check)
        except _WorkerFailed:
            yield self._management.unregister(name, version)
            raise InternalError(
                f"{name} {version} was registered and removed again: its worker ended while it loaded; the worker's "
                "log has the reason"
            ) from None

    def _until_answered(self, model: str, version: str) -> Plan[None]:
        """Let the supervisor see one answer of the version, so that the model stays ready when it is the default.

        Where no supervisor knows the version, or after ANSWER_LIMIT_S, TorchServe's word that it is ready is enough.
        """
        end = time.monotonic() + ANSWER_LIMIT_S
        while (left := end - time.monotonic()) > 0:
            try:
                yield readyz_call(model, version, limit_s=left)
                return
            except Overloaded:  # 503: not yet
                yield Pause(POLL)
            except TorchServeError:
                return

    def _until_ready(
        self, model: str, version: str | None, check: Callable[[Model], None] = lambda _: None
    ) -> Plan[None]:
        found = "how many workers are ready is not known"
        try:
            while True:
                described: Model = yield self._management.describe_one(model, version)
                if described.ready or described.min_workers == 0:
                    return
                check(described)
                ready = sum(worker.ready for worker in described.workers)
                found = f"{ready} of {described.min_workers} workers are ready"
                yield Pause(POLL)
        except Timeout as error:
            raise Timeout(f"the change was made, but {found}: {error.message}") from error


def _conflict(before: Mapping[tuple[str, str], str], archive: str, name: str | None) -> Conflict | None:
    """The reason why registering failed without one, if a version of this model was registered already.

    Args:
        before: The archive of each name and version that is registered.
        archive: The archive that was to be registered.
        name: The model's name, None where the archive says it.
    """
    stem = _stem(archive)
    versions = [
        f"{model} {version}"
        for (model, version), url in before.items()
        if model == name or (name is None and stem in (model, _stem(url)))
    ]
    if not versions:
        return None
    return Conflict(f"the version in {archive} is already registered (registered: {', '.join(versions)})")


class _WorkerFailed(Exception):
    """A worker ended before it was ready."""


def _scaled(model: str, workers: tuple[int, int]) -> str:
    least, most = workers
    return f"{model}: {least} workers" if least == most else f"{model}: {least} to {most} workers"
