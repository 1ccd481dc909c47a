"""Outlines of the objects in the drawn images, with one function for each label."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """A shape of polygons, which are [N, 2] arrays of x (to the right) and y (down).

    `body` is filled, `holes` are cut out of it, and `accents` are drawn over both in a second color.
    """

    body: tuple[Points, ...]
    holes: tuple[Points, ...] = ()
    accents: tuple[Points, ...] = ()
    upright: bool = False  # drawn nearly upright, as in photos

    def map(self, change: Callable[[Points], Points]) -> "Shape":
        """Return the shape with a function applied to all of its polygons."""
        body, holes, accents = (
            tuple(change(polygon) for polygon in part) for part in (self.body, self.holes, self.accents)
        )
        return Shape(body, holes, accents, self.upright)

    def fitted(self) -> "Shape":
        """Return the shape, moved and scaled so that the unit circle around its bounding box's center contains it."""
        points = np.concatenate(self.body + self.accents)
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        reach = float(np.linalg.norm(points - middle, axis=1).max())
        return self.map(lambda polygon: (polygon - middle) / reach)


def _polygon(*corners: tuple[float, float]) -> Points:
    return np.array(corners, dtype=np.float64)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


def _ellipse(x: float, y: float, width: float, height: float, corners: int = 60) -> Points:
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + width * np.cos(turn), y + height * np.sin(turn)], axis=1)


def _arrow(rng: np.random.Generator) -> Shape:
    shaft, head, neck = rng.uniform(0.13, 0.24), rng.uniform(0.5, 0.68), rng.uniform(0.0, 0.3)
    outline = _polygon(
        (-1, -shaft), (neck, -shaft), (neck, -head), (1, 0), (neck, head), (neck, shaft), (-1, shaft)
    )
    return Shape((outline,))


def _circle(rng: np.random.Generator) -> Shape:
    return Shape((_ellipse(0, 0, 1, rng.uniform(0.88, 1)),))


def _crescent(rng: np.random.Generator) -> Shape:
    inner, shift = rng.uniform(0.78, 0.92), rng.uniform(0.38, 0.55)
    return Shape((_ellipse(0, 0, 1, 1),), holes=(_ellipse(shift, 0, inner, inner),))


def _cross(rng: np.random.Generator) -> Shape:
    arm, width = rng.uniform(0.85, 1), rng.uniform(0.2, 0.34)
    return Shape((_box(-1, -width, 1, width), _box(-width, -arm, width, arm)))


def _fish(rng: np.random.Generator) -> Shape:
    height, tail = rng.uniform(0.36, 0.52), rng.uniform(0.34, 0.5)
    body = (_ellipse(0.2, 0, 0.8, height), _polygon((-0.35, 0), (-1, -tail), (-0.85, 0), (-1, tail)))
    fin = _polygon((0.1, -height * 0.8), (-0.2, -height - 0.22), (-0.3, -height * 0.5))
    eye = _ellipse(0.65, -height * 0.25, 0.08, 0.08)
    return Shape(body + (fin,) * int(rng.integers(2)), accents=(eye,), upright=True)


def _heart(rng: np.random.Generator) -> Shape:
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    x = 16 * np.sin(turn) ** 3
    y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    return Shape((np.stack([x * rng.uniform(0.9, 1.1), -y], axis=1),), upright=True)


def _house(rng: np.random.Generator) -> Shape:
    wide, tall, eaves, peak = (
        rng.uniform(0.6, 0.8),
        rng.uniform(0.6, 0.9),
        rng.uniform(0.1, 0.25),
        rng.uniform(0.5, 0.8),
    )
    roof = _polygon((-wide - eaves, 0), (0, -peak), (wide + eaves, 0))
    body = [_box(-wide, -0.02, wide, tall), roof]
    if rng.random() < 0.6:
        body.append(_box(wide * 0.4, -peak * 0.95, wide * 0.65, -peak * 0.2))
    entry_left, window = rng.uniform(-0.4, 0.1), rng.uniform(0.12, 0.2)
    accents = [_box(entry_left, tall * 0.4, entry_left + 0.28, tall)]
    if rng.random() < 0.8:
        accents.append(_box(0.45 - window, tall * 0.2, 0.45, tall * 0.2 + window))
    return Shape(tuple(body), accents=tuple(accents), upright=True)


def _ring(rng: np.random.Generator) -> Shape:
    height, hole = rng.uniform(0.88, 1), rng.uniform(0.5, 0.75)
    return Shape((_ellipse(0, 0, 1, height),), holes=(_ellipse(0, 0, hole, hole * height),))


def _spiral(rng: np.random.Generator) -> Shape:
    turns = rng.uniform(2.1, 3.1)
    turn = np.linspace(0.15, 1, 140) * turns * 2 * np.pi
    radius = turn / turn[-1]
    half = rng.uniform(0.2, 0.28) / turns
    direction = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    outer, inner = direction * (radius + half)[:, None], direction * np.maximum(radius - half, 0)[:, None]
    # Overlapping pieces: a single polygon would touch itself, and even-odd filling could leave gaps.
    pieces = [
        np.concatenate([outer[start : start + 12], inner[start : start + 12][::-1]])
        for start in range(0, len(turn) - 1, 11)
    ]
    return Shape(tuple(pieces))


def _square(rng: np.random.Generator) -> Shape:
    height = rng.uniform(0.88, 1)
    return Shape((_box(-1, -height, 1, height),))


def _star(rng: np.random.Generator) -> Shape:
    inner = rng.uniform(0.36, 0.5)
    turn = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, inner)
    return Shape((np.stack([radius * np.sin(turn), -radius * np.cos(turn)], axis=1),))


def _tree(rng: np.random.Generator) -> Shape:
    trunk = rng.uniform(0.08, 0.15)
    accents = (_box(-trunk, 0.55, trunk, 1),)
    if rng.random() < 0.35:  # a broad-leaved tree: a crown of three lobes
        spread = rng.uniform(0.25, 0.4)
        crown = [
            _ellipse(-spread, 0.2, 0.42, 0.4),
            _ellipse(spread, 0.2, 0.42, 0.4),
            _ellipse(0, -0.3, 0.48, 0.5),
        ]
        return Shape(tuple(crown), accents=(_box(-trunk, 0.4, trunk, 1.15),), upright=True)
    layers, wide = int(rng.integers(2, 4)), rng.uniform(0.55, 0.75)
    tops = np.linspace(-1, -0.35, layers)
    bottoms = np.linspace(-0.3, 0.6, layers)
    widths = np.linspace(wide * 0.6, wide, layers)
    crown = [
        _polygon((-w, bottom), (0, top), (w, bottom))
        for w, top, bottom in zip(widths, tops, bottoms, strict=True)
    ]
    return Shape(tuple(crown), accents=accents, upright=True)


def _triangle(rng: np.random.Generator) -> Shape:
    lean, tall = rng.uniform(-0.25, 0.25), rng.uniform(1.4, 1.9)
    return Shape((_polygon((-1, 0), (lean, -tall), (1, 0)),))


SHAPES: dict[str, Callable[[np.random.Generator], Shape]] = {
    "arrow": _arrow,
    "circle": _circle,
    "crescent": _crescent,
    "cross": _cross,
    "fish": _fish,
    "heart": _heart,
    "house": _house,
    "ring": _ring,
    "spiral": _spiral,
    "square": _square,
    "star": _star,
    "tree": _tree,
    "triangle": _triangle,
}
