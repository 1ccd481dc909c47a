"""Register an archive, find the registered version, and explain failures that TorchServe does not explain.

A REST client also registers over gRPC if it can, because TorchServe unpacks the archive of a REST call on a network
thread.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from torchserve_models.client.call_types import CallSequence
from torchserve_models.client.endpoints import Endpoints, has_grpc_management
from torchserve_models.client.errors import (
    Conflict,
    InternalError,
    InvalidRequest,
    NotFound,
    ServerError,
    Unavailable,
)
from torchserve_models.client.management import GrpcManagement, Management
from torchserve_models.client.model_descriptions import Model
from torchserve_models.client.names import check_name, is_addressable, is_name
from torchserve_models.client.readiness_report import Key

_ARCHIVE_SUFFIX = re.compile(r"\.(mar|war|zip|tgz|tar\.gz)$", re.IGNORECASE)


def check_archive(archive: str, model_name: str | None) -> None:
    """Check the name under which the archive will be registered. Raises InvalidRequest.

    Without `model_name`, the name in the archive is used, which is usually that of the file.
    """
    if not archive:
        raise InvalidRequest("the archive name is empty; pass a file name such as resnet-50.mar")
    check_name(archive_stem(archive) if model_name is None else model_name)


def archive_stem(archive: str) -> str:
    """Return the archive's file name or URL without folders and suffix."""
    return _ARCHIVE_SUFFIX.sub("", PurePosixPath(urlsplit(archive).path).name)


def management_for(management: Management, *names: str | None) -> Management:
    """Return `management` if these names of models and versions can be in a URL, gRPC's otherwise."""
    fits = all(name is None or is_addressable(name) for name in names)
    return management if fits else GrpcManagement()


class Registration:
    """Registration of archives at one server.

    Attributes:
        over_grpc: Whether `management` goes over gRPC.
    """

    def __init__(self, endpoints: Endpoints, management: Management, over_grpc: bool) -> None:
        self._management = management
        self._over_grpc = over_grpc
        self._has_grpc = over_grpc or has_grpc_management(endpoints)

    def register(self, archive: str, fields: Mapping[str, Any]) -> CallSequence[Model | None]:
        """Register an archive and find its version by comparing the lists of before and after.

        Args:
            archive: The archive's name in the model store.
            fields: Parameters of TorchServe's call; None for parameters that are not set.

        Returns:
            The new version; None if no new one is listed.

        Raises:
            InvalidRequest: The archive has an invalid name or version; it was removed again.
            Conflict: The version is registered already.
        """
        name = fields.get("model_name")
        before = yield from self._list_archives(name)
        try:
            yield from self._send({"url": archive, **fields})
        except InternalError as error:
            # TorchServe's gRPC gives no reason for a version that is registered already.
            if "gave no reason" not in error.message:
                raise
            if not self._over_grpc:
                yield self._management.register({"url": archive, **fields})  # REST names the reason
            else:
                raise _conflict(before, archive, name) or error from None
        after = yield from self._list_archives(name)
        new_keys = [key for key in after if key not in before]
        new_keys = [key for key in new_keys if after[key] == archive] or new_keys
        if not new_keys:
            return None
        model, version = new_keys[0]
        management = management_for(self._management, model, version or None)
        description: Model = yield management.describe_one(model, version or None)
        if not (is_name(description.name) and is_name(description.version)):
            management = management_for(self._management, description.name, description.version)
            yield management.unregister(description.name, description.version)
            check_name(description.name)
            check_name(description.version)
        return description

    def _send(self, fields: Mapping[str, Any]) -> CallSequence[str]:
        if self._has_grpc and not self._over_grpc:
            try:
                answer: str = yield GrpcManagement().register(fields)
                return answer
            except Unavailable as error:
                if error.sent:
                    raise
        answer = yield self._management.register(fields)
        return answer

    def _list_archives(self, model: str | None) -> CallSequence[dict[Key, str]]:
        """Return the archive of each version of one model, or of all; "" for names that cannot be in a URL."""
        names = [model] if model else [entry.name for entry in (yield from self._management.list_models())]
        archives: dict[Key, str] = {}
        for name in names:
            if not is_addressable(name):
                archives[name, ""] = ""
                continue
            try:
                versions: list[Model] = yield self._management.describe(name, "all", False)
            except (NotFound, ServerError):
                continue
            archives |= {(name, version.version): version.url for version in versions}
        return archives


def _conflict(registered: Mapping[Key, str], archive: str, name: str | None) -> Conflict | None:
    """Return the error for a version that is registered already, or None for a new model.

    Args:
        registered: The archive of each name and version that is registered.
        archive: The archive of the failed registration.
        name: The model's name; None to use the name in the archive.
    """
    stem = archive_stem(archive)
    versions = [
        f"{model} {version}"
        for (model, version), url in registered.items()
        if model == name or (name is None and stem in (model, archive_stem(url)))
    ]
    if not versions:
        return None
    return Conflict(f"the version in {archive} is already registered (registered: {', '.join(versions)})")
