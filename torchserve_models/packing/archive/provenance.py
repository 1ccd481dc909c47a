"""The file provenance.json, which records the sources and library versions of an archive."""

import importlib.metadata
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from torchserve_models.packing.errors import InvalidArchive

MEMBER = "provenance.json"

_LIBRARIES = (
    "torch",
    "torchvision",
    "transformers",
    "timm",
    "tokenizers",
    "safetensors",
    "pillow",
    "simplejpeg",
    "openvino",
    "torchserve",
    "torch-model-archiver",
)


@dataclass(frozen=True)
class Provenance:
    """The content of provenance.json.

    Attributes:
        name: Name of the model.
        version: Version of the model.
        task: Task of the model.
        weights: Kind of source: pretrained, starter, folder, state-dict or own.
        source: Origin of the weights, such as a hub id.
        revision: Commit of the hub, or digest of the state dict.
        files: SHA-256 digest of each member below model/.
        license: License of the weights, if known.
        libraries: Versions of the installed libraries.
        engine: Engine that model-config.yaml requests.
        architecture: Class name of the network.
        prepared: Description of the prepared engine files and of the int8 calibration.
    """

    name: str
    version: str
    task: str
    weights: str
    source: str
    revision: str | None
    files: Mapping[str, str]
    license: str | None
    libraries: Mapping[str, str]
    engine: str
    architecture: str
    prepared: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode()


_PROVENANCE = TypeAdapter(Provenance)


def libraries() -> dict[str, str]:
    """Return the installed versions of the libraries without build labels (+cpu, +cu128).

    The label depends on the machine that packs, but the archive runs on any machine.
    """
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def read_provenance(mar: Path) -> Provenance:
    """Read the provenance of an archive. Raises InvalidArchive if the file is missing or was not made by packing."""
    try:
        with zipfile.ZipFile(mar) as archive:
            return _PROVENANCE.validate_json(archive.read(MEMBER), strict=True, extra="forbid")
    except FileNotFoundError as error:
        raise InvalidArchive(f"The archive {mar} does not exist.") from error
    except (OSError, zipfile.BadZipFile, KeyError, ValidationError) as error:
        raise InvalidArchive(
            f"{mar} is damaged or was not created by scripts/pack. Pack the model again."
        ) from error
