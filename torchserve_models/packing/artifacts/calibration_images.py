"""The images of a folder that int8 is calibrated with: which are taken, whether they can be read, their digest."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torchserve_models.packing.errors import BadRequest, explained
from torchserve_models.packing.sources.model_files import sha256_of

MAX_IMAGES = 300
"""As many as NNCF looks at unless told otherwise (its `subset_size`)."""

RECOMMENDED_IMAGES = 100
"""Below this, ranges of activations are guesses; it is said, and done."""

MAX_PIXELS, MAX_BYTES = 50_000_000, 16 * 2**20
"""The image classifier's own limits for one image, as they are unless its configuration says otherwise."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Images:
    """`sha256` is over the contents in their order, whatever the files and the folder are called.

    Of those of an earlier pack only count and digest are known; `folder` and `paths` are empty.
    """

    count: int
    sha256: str
    folder: Path | None = None
    paths: tuple[Path, ...] = ()


def choose(folder: Path, report: Report) -> Images:
    """Up to MAX_IMAGES readable images from all over the folder, subfolders included: often each holds one label.

    Raises BadRequest where there is no folder or no image in it that can be read.
    """
    if not folder.is_dir():
        raise BadRequest(f"There is no folder {folder}; --calibrate takes one with images.")
    with explained(f"reading {folder}"):
        suffixes = _suffixes()
        found = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file()
        )
    step = max(1.0, len(found) / MAX_IMAGES)
    tried = [found[int(place * step)] for place in range(min(MAX_IMAGES, len(found)))]
    paths = tuple(path for path in tried if _is_readable(path))
    if not paths:
        raise BadRequest(
            f"{folder} holds no image that can be read; --calibrate needs some {MAX_IMAGES} as the model will "
            "see them."
        )
    if len(paths) < len(tried):
        report(f"{folder}: {len(tried) - len(paths)} of {len(tried)} images cannot be read and are left out")
    if len(paths) < RECOMMENDED_IMAGES:
        report(
            f"{folder}: WARNING: int8 is more exact with {RECOMMENDED_IMAGES} to {MAX_IMAGES} images than with "
            f"{len(paths)}"
        )
    with explained(f"reading {folder}"):
        digest = hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()
    return Images(len(paths), digest, folder, paths)


def _is_readable(path: Path) -> bool:
    """Whether a worker would read it."""
    from handlers.core.errors import HandlerError
    from handlers.vision.decode import decode_image

    try:
        decode_image(path.read_bytes(), MAX_PIXELS, MAX_BYTES, at_least=(1, 1))
    except (OSError, HandlerError):
        return False
    return True


def _suffixes() -> set[str]:
    from PIL import Image

    from handlers.vision.decode import FORMATS

    return {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
