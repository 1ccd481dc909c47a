"""JPEG images: generated images with the size, texture and file size of photos, or the user's images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from torchserve_models.tuning import workload
from training.images import LABELS, draw, to_jpeg

REQUEST_SEED, CALIBRATION_SEED, AGREEMENT_SEED = 11, 12, 13
REQUEST_COUNT = 16
SIZES = ((500, 375), (375, 500), (640, 480), (500, 333), (800, 600), (640, 427), (1024, 683), (480, 640))
"""Width and height in pixels; the average photo of ImageNet has 500 x 375."""
QUALITY = 90
_UPSCALING = 2
"""Factor by which smaller images are upscaled, which softens edges like a lens."""


def draw_photo(seed: int, index: int) -> bytes:
    """Return the JPEG number `index` of a seed, 30 to 220 KB."""
    rng = np.random.default_rng((seed, index))
    width, height = SIZES[index % len(SIZES)]
    small = draw(LABELS[index % len(LABELS)], rng, (width // _UPSCALING, height // _UPSCALING))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    textured = np.clip(pixels + _draw_texture(rng, width, height), 0, 255)
    return to_jpeg(Image.fromarray(textured.astype(np.uint8)), QUALITY)


def _draw_texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return noise [height, width, 1] at four scales that imitates surfaces: finer scales are weaker."""
    total = np.zeros((height, width), np.float32)
    for octave in range(4):
        grain = rng.standard_normal((height // 2**octave + 1, width // 2**octave + 1), dtype=np.float32)
        layer = Image.fromarray(grain).resize((width, height), Image.Resampling.BILINEAR)
        total += np.asarray(layer) * np.float32(3 * 1.5**octave)
    return total[:, :, None]


def load_images(folder: Path | None) -> tuple[bytes, ...]:
    """Return generated images, or every JPEG of `folder`. Raises TuningError."""
    if folder is None:
        return tuple(draw_photo(REQUEST_SEED, index) for index in range(REQUEST_COUNT))
    return tuple(workload.load_images(folder))


def write_photos(folder: Path, seed: int, count: int) -> Path:
    """Write the first images of a series to a folder, unless they exist, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"{index:04}.jpg"
        if not path.exists():
            path.write_bytes(draw_photo(seed, index))
    return folder


def describe_sizes(images: Sequence[bytes]) -> str:
    kilobytes = sorted(len(image) / 1000 for image in images)
    return f"{len(kilobytes)} JPEGs of {kilobytes[0]:.0f} to {kilobytes[-1]:.0f} KB"
