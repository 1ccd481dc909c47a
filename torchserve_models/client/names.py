"""Names and versions of models: the one rule for those that are registered, and which others can be asked for."""

import re

from torchserve_models.client.errors import InvalidRequest

MAX_LENGTH = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def is_name(text: str) -> bool:
    """Whether a model or a version may be registered as `text`: what TorchServe, URLs and file names can all carry.

    `..` is not allowed: TorchServe takes no path that holds it.
    """
    return _NAME.fullmatch(text) is not None and len(text) <= MAX_LENGTH and ".." not in text


def check_name(name: str) -> str:
    """Return the name of a model or version that is to be registered. Raises InvalidRequest for an invalid one.

    TorchServe registers any name, but a model with a slash in its name can then neither be asked nor removed over
    REST.
    """
    if not is_name(name):
        raise InvalidRequest(
            f"{name!r} is not a valid name of a model or version: 1 to {MAX_LENGTH} letters, digits, '.', '_' or '-' "
            f"are allowed, the first one a letter or digit, and no '..'{_hint(name)}"
        )
    return name


def is_addressable(text: str) -> bool:
    """Whether a registered model or version of any name can be a segment of a URL's path, percent-encoded.

    TorchServe decodes a path before it splits it at slashes, and proxies remove `.` and `..`.
    """
    return text not in ("", ".", "..") and "/" not in text and not _UNPRINTABLE.search(text)


def check_addressable(name: str) -> str:
    """Return the name of a model or version that is asked for. Raises InvalidRequest if it cannot be in a URL."""
    if not is_addressable(name):
        raise InvalidRequest(
            f"{name!r} cannot be the name of a model or version in a URL, which gRPC does not need{_hint(name)}"
        )
    return name


def check_present(*names: str | None) -> None:
    """For gRPC, which carries any name but takes an empty one for none at all. Raises InvalidRequest."""
    if "" in names:
        raise InvalidRequest("the name or the version of the model is empty")


def _hint(name: str) -> str:
    if "/" not in name:
        return ""
    return f"; for a model of the Hugging Face Hub, take its last part: {name.rpartition('/')[2]!r}"
