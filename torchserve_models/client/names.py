"""Checks of model names and versions for registration and for use in URLs."""

import re

from torchserve_models.client.errors import InvalidRequest

MAX_LENGTH = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def is_name(text: str) -> bool:
    """Return whether `text` is a valid name of a model or version for TorchServe, URLs and file names.

    `..` is not allowed: TorchServe rejects paths that contain it.
    """
    return _NAME.fullmatch(text) is not None and len(text) <= MAX_LENGTH and ".." not in text


def check_name(name: str) -> str:
    """Return the name of a model or version to register. Raises InvalidRequest if it is invalid.

    TorchServe registers any name, but a model with a slash in its name can be neither used nor removed over REST.
    """
    if not is_name(name):
        raise InvalidRequest(
            f"{name!r} is not a valid name of a model or version: 1 to {MAX_LENGTH} letters, digits, '.', '_' or '-' "
            f"are allowed, the first one a letter or digit, and no '..'{_hint(name)}"
        )
    return name


def is_addressable(text: str) -> bool:
    """Return whether the name of a registered model or version can be a segment of a URL's path, percent-encoded.

    TorchServe decodes a path before it splits it at slashes, and proxies remove `.` and `..`.
    """
    return text not in ("", ".", "..") and "/" not in text and not _UNPRINTABLE.search(text)


def check_addressable(name: str) -> str:
    """Return the name of a model or version. Raises InvalidRequest if it cannot be in a URL."""
    if not is_addressable(name):
        raise InvalidRequest(
            f"{name!r} cannot be part of a URL; use gRPC for a model or version of this name{_hint(name)}"
        )
    return name


def check_present(*names: str | None) -> None:
    """Raise InvalidRequest for an empty name, which gRPC cannot distinguish from a missing name."""
    if "" in names:
        raise InvalidRequest("the name and the version of a model must not be empty")


def _hint(name: str) -> str:
    if "/" not in name:
        return ""
    return f"; for a model of the Hugging Face Hub, use its last part: {name.rpartition('/')[2]!r}"
