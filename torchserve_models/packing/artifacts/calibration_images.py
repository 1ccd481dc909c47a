"""Selection of the images that int8 is calibrated with."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torchserve_models.packing.errors import InvalidOptions, explain_os_errors
from torchserve_models.packing.request import Report
from torchserve_models.packing.sources.model_files import sha256_of

MAX_IMAGES = 300
"""Maximum number of selected images, the default `subset_size` of NNCF."""

RECOMMENDED_IMAGES = 100
"""Number of images below which a warning is reported, because activation ranges become inaccurate."""

MAX_PIXELS, MAX_BYTES = 50_000_000, 16 * 2**20
"""Default limits of the image classifier for one image."""


@dataclass(frozen=True)
class CalibrationImages:
    """The selected images. For an earlier archive, only count and digest are known.

    Attributes:
        count: Number of images.
        sha256: Digest of the image contents in order, independent of file names.
        folder: Folder of the images.
        paths: Image files.
    """

    count: int
    sha256: str
    folder: Path | None = None
    paths: tuple[Path, ...] = ()


def select_images(folder: Path, report: Report) -> CalibrationImages:
    """Select up to MAX_IMAGES readable images, evenly spread, because subfolders often contain one label each.

    Raises:
        InvalidOptions: The folder does not exist or has no readable image.
    """
    if not folder.is_dir():
        raise InvalidOptions(f"Folder {folder} does not exist. Pass a folder of images to --calibrate.")
    with explain_os_errors(f"reading {folder}"):
        suffixes = _suffixes()
        files = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file()
        )
    step = max(1.0, len(files) / MAX_IMAGES)
    candidates = [files[int(index * step)] for index in range(min(MAX_IMAGES, len(files)))]
    paths = tuple(path for path in candidates if _is_readable(path))
    if not paths:
        raise InvalidOptions(
            f"{folder} contains no readable images. Use about {MAX_IMAGES} images similar to those the model will "
            "classify."
        )
    if len(paths) < len(candidates):
        unreadable = len(candidates) - len(paths)
        report(f"{folder}: {unreadable} of {len(candidates)} images cannot be read and are skipped")
    if len(paths) < RECOMMENDED_IMAGES:
        report(
            f"{folder}: WARNING: only {len(paths)} images; int8 is more accurate with "
            f"{RECOMMENDED_IMAGES} to {MAX_IMAGES}"
        )
    with explain_os_errors(f"reading {folder}"):
        digest = hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()
    return CalibrationImages(len(paths), digest, folder, paths)


def _is_readable(path: Path) -> bool:
    """Return whether a worker can decode the image."""
    from handlers.core.errors import HandlerError
    from handlers.vision.decode import decode_image

    try:
        decode_image(path.read_bytes(), MAX_PIXELS, MAX_BYTES, min_size=(1, 1))
    except (OSError, HandlerError):
        return False
    return True


def _suffixes() -> set[str]:
    from PIL import Image

    from handlers.vision.decode import FORMATS

    return {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
