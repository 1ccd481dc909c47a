"""The JPEGs that are sent: drawn ones of a photo's size, texture and weight in bytes, or the user's own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.errors import BenchError
from training.images import LABELS, draw, to_jpeg

SENT_SEED, CALIBRATION_SEED, AGREEMENT_SEED = 11, 12, 13
SIZES = ((500, 375), (375, 500), (640, 480), (500, 333), (800, 600), (640, 427), (1024, 683), (480, 640))
"""Width and height in pixels; photos of ImageNet have 500 x 375 on the average, those of cameras' previews more."""
QUALITY = 90
_DRAWN_AT = 2  # drawn smaller by this much and scaled up: edges get soft, as a lens makes them


def photo(seed: int, index: int) -> bytes:
    """The JPEG of that number in the endless series of that seed, 30 to 220 KB."""
    rng = np.random.default_rng((seed, index))
    width, height = SIZES[index % len(SIZES)]
    drawn = draw(LABELS[index % len(LABELS)], rng, (width // _DRAWN_AT, height // _DRAWN_AT))
    soft = np.asarray(drawn.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    rough = soft + _texture(rng, width, height)
    return to_jpeg(Image.fromarray(np.clip(rough, 0, 255).astype(np.uint8)), QUALITY)


def _texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise [height, width, 1] at four scales, as surfaces have it: half as strong at half the size."""
    total = np.zeros((height, width), np.float32)
    for octave in range(4):
        grain = rng.standard_normal((height // 2**octave + 1, width // 2**octave + 1), dtype=np.float32)
        layer = Image.fromarray(grain).resize((width, height), Image.Resampling.BILINEAR)
        total += np.asarray(layer) * np.float32(3 * 1.5**octave)
    return total[:, :, None]


def sent(folder: Path | None, count: int = 16) -> list[bytes]:
    """`count` drawn images, or every JPEG of the user's `folder`. Raises BenchError."""
    if folder is None:
        return [photo(SENT_SEED, index) for index in range(count)]
    try:
        found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".jpg", ".jpeg")]
        images = [path.read_bytes() for path in found]
    except OSError as error:
        raise BenchError(f"--images {folder}: {error.strerror}") from error
    if not images:
        raise BenchError(f"--images {folder}: no .jpg in it")
    return images


def to_folder(folder: Path, seed: int, count: int) -> Path:
    """The first `count` images of the series as files, for a command that takes a folder; once."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"{index:04}.jpg"
        if not path.exists():
            path.write_bytes(photo(seed, index))
    return folder


def sizes(images: Sequence[bytes]) -> str:
    """How heavy they are, for a person."""
    kilobytes = sorted(len(image) / 1000 for image in images)
    return f"{len(kilobytes)} JPEGs of {kilobytes[0]:.0f} to {kilobytes[-1]:.0f} KB"
