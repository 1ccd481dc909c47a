"""Draw labeled images from a seed: one object on a busy background, compressed like a photo.

    python -m training.images --label heart --seed 7 --out heart.jpg

The object is always inside the middle square that image classifiers use: they resize the shorter side to 256 pixels
and crop the middle 224. The label is therefore still correct after preprocessing.
"""

import argparse
import io
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from training.shapes import SHAPES, Points, Shape

Field = npt.NDArray[np.float32]  # [height, width], 0 to 1: the share of the second of two colors
Color = npt.NDArray[np.float64]  # [3], 0 to 255

LABELS: tuple[str, ...] = tuple(SHAPES)
SHORT_SIDE_PIXELS = (160, 400)
MAX_SIDE_PIXELS = 640
MIDDLE_RADIUS = 0.43  # share of the shorter side; the classifier's crop keeps 0.875 / 2 = 0.4375
RADIUS = (0.15, 0.41)  # range of the object's radius, as a share of the shorter side
OVERSAMPLING = 3  # outlines are drawn larger by this factor and scaled down, for smooth edges
LUMA = np.array([0.299, 0.587, 0.114])


def draw_image(seed: int, index: int) -> tuple[str, bytes]:
    """Return the label and JPEG file of image `index` in the endless series of a seed.

    Labels repeat in a fixed order, so that `len(LABELS)` successive images have each label once.
    """
    rng = np.random.default_rng((seed, index))
    label = LABELS[index % len(LABELS)]
    return label, to_jpeg(draw(label, rng, _size(rng)), quality=int(rng.integers(30, 96)))


def draw(label: str, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Draw an RGB image with this label and size (width, height). Raises KeyError for an unknown label."""
    shape = SHAPES[label](rng).fitted()
    one, two = _background_colors(rng)
    image = _blend(_field(rng, size), one, two)
    _draw_distractors(rng, image, one, two)
    _draw_shape(rng, image, shape, one, two)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.0)) * min(size) / 256))
    return _noisy(rng, image)


def to_jpeg(image: Image.Image, quality: int) -> bytes:
    """Return the image as a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _size(rng: np.random.Generator) -> tuple[int, int]:
    short = int(rng.integers(SHORT_SIDE_PIXELS[0], SHORT_SIDE_PIXELS[1] + 1))
    long = min(MAX_SIDE_PIXELS, int(short * rng.uniform(1.0, 1.8)))
    return (long, short) if rng.random() < 0.6 else (short, long)


def _background_colors(rng: np.random.Generator) -> tuple[Color, Color]:
    one = rng.uniform(0, 255, 3)
    other = rng.uniform(0, 255, 3)
    return one, one + (other - one) * rng.uniform(
        0.1, 0.6
    )  # similar enough that other colors differ from both


def _contrasting(rng: np.random.Generator, one: Color, two: Color) -> Color:
    """Return a color that differs from all mixtures of two others, in brightness as well."""
    candidates = rng.uniform(0, 255, (32, 3))
    behind = np.stack([one, (one + two) / 2, two])
    apart = candidates[:, None] - behind
    color, bright = np.linalg.norm(apart, axis=2).min(axis=1), np.abs(apart @ LUMA).min(axis=1)
    clear = np.flatnonzero((color > 90) & (bright > 40))
    return np.asarray(candidates[clear[0] if clear.size else int((color + 2 * bright).argmax())])


def _field(rng: np.random.Generator, size: tuple[int, int]) -> Field:
    """Return a pattern over the whole image: flat, a gradient, stripes, tiles, or clouds."""
    width, height = size
    turn, cell = rng.uniform(0, 2 * math.pi), rng.uniform(0.04, 0.25) * min(size)
    x = np.arange(width, dtype=np.float32)[None, :] - width * np.float32(rng.uniform(0.2, 0.8))
    y = np.arange(height, dtype=np.float32)[:, None] - height * np.float32(rng.uniform(0.2, 0.8))
    along = x * np.float32(math.cos(turn)) + y * np.float32(math.sin(turn))
    across = y * np.float32(math.cos(turn)) - x * np.float32(math.sin(turn))
    match rng.choice(["flat", "slope", "glow", "stripes", "waves", "tiles", "clouds"]):
        case "flat":
            return np.zeros((height, width), np.float32)
        case "slope":
            return np.asarray(np.clip(along / (width + height) + 0.5, 0, 1))
        case "glow":
            return np.asarray(np.exp(-(x**2 + y**2) / np.float32(0.2 * (width**2 + height**2))))
        case "stripes":
            return np.asarray((along // cell % 2).astype(np.float32))
        case "waves":
            return np.asarray(np.sin(along / cell * 3) / 2 + 0.5)
        case "tiles":
            return np.asarray(((along // cell + across // cell) % 2).astype(np.float32))
        case _:
            grain = int(rng.integers(3, 24))
            coarse = Image.fromarray(rng.integers(0, 256, (grain, grain), dtype=np.uint8))
            return np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float32) / np.float32(255)


def _blend(field: Field, one: Color, two: Color) -> Image.Image:
    values = one.astype(np.float32) + field[:, :, None] * (two - one).astype(np.float32)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _ink(color: Color) -> tuple[int, int, int]:
    red, green, blue = np.clip(color, 0, 255).astype(int).tolist()
    return red, green, blue


def _draw_distractors(rng: np.random.Generator, image: Image.Image, one: Color, two: Color) -> None:
    """Draw random lines, specks and ragged patches, smaller than any labeled object."""
    pen = ImageDraw.Draw(image)
    short = min(image.size)
    for _ in range(int(rng.integers(0, 9))):
        ink = _ink(rng.uniform(0, 255, 3) * 0.6 + (one + two) * 0.2)
        x, y = rng.uniform(0, image.width), rng.uniform(0, image.height)
        match rng.choice(["line", "speck", "patch"]):
            case "line":
                end = (rng.uniform(0, image.width), rng.uniform(0, image.height))
                pen.line([(x, y), end], fill=ink, width=max(1, int(short * rng.uniform(0.004, 0.015))))
            case "speck":
                r = short * rng.uniform(0.005, 0.02)
                pen.ellipse([x - r, y - r, x + r, y + r], fill=ink)
            case _:
                turn = np.sort(rng.uniform(0, 2 * math.pi, 7))
                reach = short * rng.uniform(0.015, 0.06, 7)
                pen.polygon(
                    [(x + r * math.cos(t), y + r * math.sin(t)) for r, t in zip(reach, turn, strict=True)],
                    ink,
                )


def _draw_shape(rng: np.random.Generator, image: Image.Image, shape: Shape, one: Color, two: Color) -> None:
    """Draw the shape in the middle square, rotated, stretched and shaded, sometimes with an outline."""
    short = min(image.size)
    radius = short * rng.uniform(*RADIUS)
    max_offset = short * MIDDLE_RADIUS - radius
    center = np.array(image.size) / 2 + rng.uniform(-max_offset, max_offset, 2)
    matrix = _turn_and_stretch(rng, shape.upright)
    shape = shape.map(lambda points: points @ matrix).fitted()

    side = math.ceil(2 * radius) + 6
    corner = (center - side / 2).round().astype(int)
    color = _contrasting(rng, one, two)
    shade = color + (rng.uniform(0, 255, 3) - color) * 0.2
    fill = _blend(_field(rng, (side, side)), color, shade)
    body = _mask(shape.body, shape.holes, side, radius)
    top_left = (int(corner[0]), int(corner[1]))
    if rng.random() < 0.3:
        rim = Image.new("RGB", fill.size, _ink(rng.choice([0.4, 1.6]) * color))
        width = 2 * max(1, round(radius * 0.03)) + 1
        fill = Image.composite(fill, rim, body.filter(ImageFilter.MinFilter(width)))
    image.paste(fill, top_left, body)
    if shape.accents:
        detail = _contrasting(rng, color, shade)
        image.paste(
            _ink(detail),
            (*top_left, top_left[0] + side, top_left[1] + side),
            _mask(shape.accents, (), side, radius),
        )


def _turn_and_stretch(rng: np.random.Generator, upright: bool) -> Points:
    turn = rng.uniform(-0.5, 0.5) if upright else rng.uniform(0, 2 * math.pi)
    rotate = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    stretch = np.array([[rng.choice([-1.0, 1.0]), rng.uniform(-0.12, 0.12)], [0, rng.uniform(0.88, 1.12)]])
    return np.asarray(stretch @ rotate)


def _mask(painted: tuple[Points, ...], cut: tuple[Points, ...], side: int, radius: float) -> Image.Image:
    """Return the mask of polygons in unit coordinates on a square of `side` pixels, with smooth edges."""
    mask = Image.new("L", (side * OVERSAMPLING, side * OVERSAMPLING))
    pen = ImageDraw.Draw(mask)
    for polygons, value in ((painted, 255), (cut, 0)):
        for points in polygons:
            pen.polygon([(x, y) for x, y in ((points * radius + side / 2) * OVERSAMPLING).tolist()], value)
    return mask.reduce(OVERSAMPLING)


def _noisy(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    strength = rng.choice([0.0, 1.0], p=[0.3, 0.7]) * rng.uniform(2, 18)
    if not strength:
        return image
    grain = rng.standard_normal((image.height, image.width, 1), dtype=np.float32) * np.float32(strength)
    tint = rng.uniform(0.4, 1.0, 3).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(image, np.float32) + grain * tint, 0, 255).astype(np.uint8))


def main() -> None:
    """Write one drawn image to a file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--label", choices=LABELS, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True, help="a .jpg file")
    arguments = parser.parse_args()
    _, data = draw_image(arguments.seed, LABELS.index(arguments.label))
    arguments.out.write_bytes(data)


if __name__ == "__main__":
    main()
