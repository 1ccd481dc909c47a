"""provenance.json: what an archive was made of and with; written by pack, read by anybody with unzip."""

import importlib.metadata
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torchserve_models.packing.errors import BadArchive

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
    """`weights` is pretrained, starter, folder or state-dict; `revision` the hub's commit or the state dict's digest;
    `files` maps member to sha256.

    `engine` is what model-config.yaml asks for, `prepared` what was made for it and how int8 was calibrated.
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


def libraries() -> dict[str, str]:
    """The versions that are installed here, without the label of a build (+cpu, +cu128).

    The label says on what kind of machine the archive was packed; the same archive serves on any.
    """
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def read_provenance(mar: Path) -> Provenance:
    """What the archive says about itself. Raises BadArchive when there is no such archive, or it does not say."""
    try:
        with zipfile.ZipFile(mar) as archive:
            raw = json.loads(archive.read(MEMBER))
        return Provenance(**raw)
    except FileNotFoundError as error:
        raise BadArchive(f"There is no archive {mar}.") from error
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise BadArchive(f"{mar} is not a whole archive of scripts/pack; pack it again.") from error
