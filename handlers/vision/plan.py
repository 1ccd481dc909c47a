"""What a model's image processor does to an image, in numbers, and done in a tenth of its time."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from handlers.core.errors import ConfigurationError
from handlers.vision.candidates import candidates
from handlers.vision.types import InputSpec, Normalization

MAX_ASPECT = 8
"""Longer than this, an image that is resized by its shorter edge would grow without bound. The crop that follows
keeps the middle of it, so that what lies further out is never seen."""
MAX_EDGE = 4096
"""Pixels of an image's edge as the network takes it."""
DETAIL = 2
"""A decoder that leaves out detail keeps this many times the height and width of the resize, so that it is still
the resize whose filter shows. At 1, decoding takes a tenth less and real photos are four times as many levels off."""
MOST_OFF, MEAN_OFF = 2.01, 0.05
"""Levels. A resize goes along one axis and then the other and rounds after each; where Pillow, which timm resizes
with, and torch round differently in both, a pixel is two levels off. On noise, about one in 200 is off at all."""
RESAMPLES = ("bilinear", "bicubic", "lanczos")
# Height and width of the images that a plan is tried on: both ways round, smaller than a crop, odd, long.
_TRIALS = ((301, 417), (530, 333), (61, 90), (150, 1001))
_DIGITS = 7  # what float32 holds
Levels = TypeVar("Levels", np.ndarray, torch.Tensor)
Resized = Callable[[torch.Tensor, tuple[int, int], str], torch.Tensor]
"""uint8 [height, width, 3], the size it shall have and one of RESAMPLES, to uint8 [*size, 3]; antialiased."""


@dataclass(frozen=True)
class Plan:
    """Resize, cut out the middle, then normalize: the last is left to the engine.

    `resize`: pixels of the shorter edge, or (height, width), or None to leave the image as it is.
    `resample`: one of RESAMPLES, always with antialiasing, as torchvision does by default.
    `crop`: (height, width); where the resized image is smaller, black fills the rest.
    `rounding`: what lies half a pixel off the middle is cut "down", as transformers does, or to "even" numbers, as
    torchvision and timm do.
    """

    resize: int | tuple[int, int] | None
    resample: str
    crop: tuple[int, int] | None
    normalization: Normalization
    rounding: str = "down"

    @property
    def spec(self) -> InputSpec:
        height, width = self.crop or self._exact
        return InputSpec(height, width, self.normalization)

    @property
    def at_least(self) -> tuple[int, int] | None:
        """Height and width that an image should keep when it is decoded; None where every pixel counts."""
        if self.resize is None:
            return None
        height, width = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        return DETAIL * height, DETAIL * width

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """uint8 RGB [height, width, 3] of any size to uint8 [H, W, 3] of `spec`. Safe in several threads at once."""
        if not (image.flags.writeable and image.flags.c_contiguous):
            image = image.copy()  # torch takes no other
        return self.apply(torch.from_numpy(image), _resized)

    def apply(self, image: torch.Tensor, resized: Resized) -> torch.Tensor:
        """The same of a tensor, on the device where it lies, its strides as they may be."""
        if isinstance(self.resize, int):
            image = center(image, MAX_ASPECT)
        height, width = image.shape[:2]
        match self.resize:
            case int(edge):
                short = min(height, width)
                # transformers.image_transforms.get_resize_output_image_size
                target = int(edge * height / short), int(edge * width / short)
            case None:
                target = height, width
            case exact:
                target = exact
        if target != (height, width):
            image = resized(image, target, self.resample)
        return _middle(image, self.crop or target, self.rounding)

    @property
    def _exact(self) -> tuple[int, int]:
        if not isinstance(self.resize, tuple):
            raise ValueError("without a crop, only a resize to an exact size makes all images equal in size")
        return self.resize

    def write(self, path: Path) -> None:
        values = asdict(self) | {"normalization": self.normalization._asdict()}
        path.write_text(json.dumps(values, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Plan":
        values = json.loads(path.read_text())
        scale, mean, std = (values["normalization"][name] for name in Normalization._fields)
        resize, crop = values["resize"], values["crop"]
        return cls(
            tuple(resize) if isinstance(resize, list) else resize,
            values["resample"],
            tuple(crop) if crop else None,
            Normalization(scale, tuple(mean), tuple(std)),
            values.get("rounding", "down"),
        )


def processor_of(folder: Path) -> Any:
    """transformers' image processor of a model. Raises ConfigurationError where the folder names none."""
    from transformers import AutoImageProcessor

    config = folder / "config.json"
    names = ("preprocessor_config.json", "processor_config.json")
    files = [folder / name for name in names if (folder / name).exists()]
    settings = [_checked_settings(file) for file in files]
    if not files and not (
        config.exists() and "pretrained_cfg" in json.loads(config.read_text())  # timm's, which says it there
    ):
        raise ConfigurationError(
            "the model has no preprocessor_config.json, which says how images are prepared"
        )
    try:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ValueError:
        if not any("auto_map" in each for each in settings):
            raise
        raise ConfigurationError(
            "preprocessor_config.json names code of its own ('auto_map'), which is never run; name a class of "
            "transformers as 'image_processor_type'"
        ) from None


def _checked_settings(file: Path) -> dict[str, Any]:
    """Raises ConfigurationError for images that no network takes, before any is made."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ConfigurationError(f"{file.name} is not a JSON object")
    for name in ("size", "crop_size"):
        value = settings.get(name)
        for edge in value.values() if isinstance(value, dict) else [value]:
            if isinstance(edge, float) or (type(edge) is int and not 1 <= edge <= MAX_EDGE):
                raise ConfigurationError(
                    f"{file.name}: {name!r} must be an integer from 1 to {MAX_EDGE} pixels, not {edge}"
                )
    resample = settings.get("resample")
    if type(resample) is int and resample not in list(Image.Resampling):
        raise ConfigurationError(
            f"{file.name}: 'resample' must be a filter of Pillow's, {min(Image.Resampling)} to "
            f"{max(Image.Resampling)}, not {resample}"
        )
    return settings


def plan_of_processor(processor: Any) -> Plan | None:
    """The plan of transformers' image processor, or None where it does what no plan can say.

    A plan is tried beside the processor on random images, and must come as near to it as rounding allows.
    """
    choices = [choice for choice in candidates(processor) if choice.resample in RESAMPLES]
    normalization = _normalization(processor) if choices else None
    if normalization is None:
        return None
    trials = [_noise(size) for size in _TRIALS]
    expected = [processed(processor, image) for image in trials]
    for resize, resample, crop, rounding in choices:
        if crop is None and not isinstance(resize, tuple):
            continue  # images of many sizes cannot be a batch
        plan = Plan(resize, resample, crop, normalization, rounding)
        odd = _noise(_odd(plan))
        if all(map(partial(_agrees, plan), trials, expected)) and _agrees(
            plan, odd, processed(processor, odd)
        ):
            return plan
    return None


def _noise(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)


def _odd(plan: Plan) -> tuple[int, int]:
    """Height and width of an image whose crop shows how its middle is rounded: 1.5 pixels to 1 or to 2."""
    height, width = plan.crop or (1, 1)
    if isinstance(plan.resize, int):  # an image that no resize changes
        least = max(plan.resize, width)
        return plan.resize, least + (width + 3 - least) % 4
    return height + 3, width + 3


def processed(processor: Any, image: np.ndarray) -> torch.Tensor:
    """By transformers' image processor: float32 [3, height, width]."""
    # As an image, since an array three pixels high would be taken for one of three channels.
    pixels: torch.Tensor = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
    return pixels[0].float()


def center(image: Levels, max_aspect: int) -> Levels:
    """The middle of an image [height, width, 3], its longer edge at most `max_aspect` times the shorter."""
    longest = max_aspect * min(image.shape[:2])
    if max(image.shape[:2]) <= longest:
        return image
    height, width = (min(size, longest) for size in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _normalization(processor: Any) -> Normalization | None:
    """By what black and white become, whatever the attributes are called; None where that is no straight line."""
    black, white = (
        processed(processor, np.full((64, 64, 3), level, np.uint8)).double() for level in (0, 255)
    )
    if black.shape != white.shape or black.ndim != 3 or len(black) != 3:
        return None
    row, column = black.shape[1] // 2, black.shape[2] // 2
    low, high = black[:, row, column], white[:, row, column]
    if not (high > low).all():
        return None
    std = 1 / (high - low)
    return Normalization(1 / 255, _channels((0 - low) * std), _channels(std))


def _channels(values: torch.Tensor) -> tuple[float, float, float]:
    red, green, blue = (float(f"{value:.{_DIGITS}g}") for value in values.tolist())
    return red, green, blue


def _agrees(plan: Plan, image: np.ndarray, expected: torch.Tensor) -> bool:
    """Within MOST_OFF levels everywhere and MEAN_OFF in the mean; another filter or place is off by ten and more."""
    scale, mean, std = plan.normalization
    levels = (expected.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)) / scale
    ours = plan(image)
    if ours.shape != levels.shape:
        return False
    off = (ours - levels).abs()
    return bool(off.max() < MOST_OFF and off.mean() < MEAN_OFF)


def _resized(image: torch.Tensor, target: tuple[int, int], resample: str) -> torch.Tensor:
    """On a CPU, by the same code as torchvision's resize."""
    image = image.contiguous()
    height, width = image.shape[:2]
    # One image in channels-last order. Without its own stride for the batch, torch would take it for another
    # order and pack the result anew, on all threads (torch issue 68430).
    pixels = image.as_strided((1, 3, height, width), (image.numel(), 1, 3 * width, 3))
    resized = torch.nn.functional.interpolate(
        pixels, target, mode=resample, align_corners=False, antialias=True
    )
    return resized[0].permute(1, 2, 0)


def _middle(image: torch.Tensor, size: tuple[int, int], rounding: str) -> torch.Tensor:
    """A copy of the middle, contiguous; black where the image is smaller than that."""
    cut = image.new_zeros((*size, 3))
    (top, to_top, rows), (left, to_left, columns) = (
        _overlap(have, want, rounding) for have, want in zip(image.shape, size, strict=False)
    )
    cut[to_top : to_top + rows, to_left : to_left + columns] = image[top : top + rows, left : left + columns]
    return cut


def _overlap(have: int, want: int, rounding: str) -> tuple[int, int, int]:
    """Where the middle begins in the image and in its cut, and how much of it there is."""
    beyond = max(have - want, 0)
    begin = beyond // 2 if rounding == "down" else round(beyond / 2)
    return begin, max(want - have, 0) // 2, min(have, want)
