"""Names and versions of models that can be packed: those that can be registered (client/names.py)."""

import re

from torchserve_models.client.names import MAX_LENGTH, is_name
from torchserve_models.packing.errors import BadRequest

_OTHER = re.compile(r"[^A-Za-z0-9._-]+")


def check_name(name: str) -> None:
    """Raises BadRequest for a name that TorchServe or a URL cannot carry, with one that they can."""
    if not is_name(name):
        raise BadRequest(
            f"{name!r} cannot be a model's name: use letters, digits, '_', '-' and single dots, a letter or digit "
            f"first, at most {MAX_LENGTH} characters{_hint(name)}"
        )


def check_version(version: str) -> None:
    """Raises BadRequest for a version that TorchServe or a URL cannot carry."""
    if not is_name(version):
        raise BadRequest(
            f"{version!r} cannot be a version: use letters, digits, '_', '-' and single dots, a letter or digit "
            f"first, at most {MAX_LENGTH} characters."
        )


def _hint(name: str) -> str:
    """Hub ids have slashes: `org/resnet` is `resnet`, packed with --from."""
    last = name.rstrip("/").rpartition("/")[2]
    proposal = re.sub(r"\.{2,}", ".", _OTHER.sub("-", last)).strip("-._")[:MAX_LENGTH]
    if not proposal or not is_name(proposal):
        return "."
    source = f" --from {name}" if re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII) else ""
    return f". For example: scripts/pack {proposal}{source}"
