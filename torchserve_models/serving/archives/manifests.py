"""Read a model's version from the manifest of its archive."""

import json
import zipfile
from pathlib import Path

_MANIFEST = "MAR-INF/MANIFEST.json"


def archive_version(archive: Path) -> str | None:
    """Return the model version of an archive; None if the file is missing, damaged or not an archive."""
    try:
        with zipfile.ZipFile(archive) as content:
            return _version(content.read(_MANIFEST))
    except Exception:  # zipfile does not wrap the errors of the decompressors
        return None


def folder_version(folder: Path) -> str | None:
    """Return the model version of an unpacked archive; None if the manifest is missing or invalid."""
    try:
        return _version((folder / _MANIFEST).read_bytes())
    except (OSError, KeyError, ValueError, TypeError, RecursionError):
        return None


def _version(manifest: bytes) -> str:
    return str(json.loads(manifest)["model"]["modelVersion"])
