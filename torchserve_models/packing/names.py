"""Validation of model names and versions."""

import re

from torchserve_models.client.names import MAX_LENGTH, is_name
from torchserve_models.packing.errors import InvalidOptions

_OTHER = re.compile(r"[^A-Za-z0-9._-]+")


def check_name(name: str) -> None:
    """Raise InvalidOptions, with a suggestion, for a name that is not valid in TorchServe and in URLs."""
    if not is_name(name):
        raise InvalidOptions(
            f"{name!r} is not a valid model name: use letters, digits, '_', '-' and single dots, starting with a "
            f"letter or digit, at most {MAX_LENGTH} characters{_hint(name)}"
        )


def check_version(version: str) -> None:
    """Raise InvalidOptions for a version that is not valid in TorchServe and in URLs."""
    if not is_name(version):
        raise InvalidOptions(
            f"{version!r} is not a valid version: use letters, digits, '_', '-' and single dots, starting with a "
            f"letter or digit, at most {MAX_LENGTH} characters."
        )


def _hint(name: str) -> str:
    """Suggest a valid name; a hub id such as `org/resnet` becomes `resnet`, packed with --from."""
    last = name.rstrip("/").rpartition("/")[2]
    proposal = re.sub(r"\.{2,}", ".", _OTHER.sub("-", last)).strip("-._")[:MAX_LENGTH]
    if not proposal or not is_name(proposal):
        return "."
    source = f" --from {name}" if re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII) else ""
    return f". For example: scripts/pack {proposal}{source}"
