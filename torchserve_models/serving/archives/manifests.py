"""Read a model's version from the manifest of its archive."""

import json
import zipfile
from pathlib import Path

_MANIFEST = "MAR-INF/MANIFEST.json"


def archive_version(archive: Path) -> str | None:
    """Return the version in an archive; None if the file is missing, damaged or not an archive."""
    try:
        with zipfile.ZipFile(archive) as content:
            return _version(content.read(_MANIFEST))
    except Exception:  # zipfile passes on whatever the decompressors raise
        return None


def folder_version(folder: Path) -> str | None:
    """Return the version in an unpacked archive; None for a folder without a manifest."""
    try:
        return _version((folder / _MANIFEST).read_bytes())
    except (OSError, KeyError, ValueError, TypeError, RecursionError):
        return None


def _version(manifest: bytes) -> str:
    return str(json.loads(manifest)["model"]["modelVersion"])
