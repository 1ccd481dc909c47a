"""Derive a preprocessing plan from a model's image processor, by comparing their results."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from handlers.core.errors import ConfigurationError
from handlers.engines.image.types import Normalization
from handlers.vision.plan_candidates import enumerate_candidates
from handlers.vision.preprocessing_plan import PreprocessingPlan
from handlers.vision.resize import RESAMPLES

MAX_EDGE_PIXELS = 4096
"""Maximum height and width of the network's input."""
MAX_DIFFERENCE, MAX_MEAN_DIFFERENCE = 2.01, 0.05
"""Maximum difference of a pixel, in levels (0 to 255), and maximum mean difference. A resize rounds after each axis;
a pixel differs by two if Pillow (used by timm) and torch round differently after both. On noise, about one in 200
pixels differs."""
# Height and width of the images that a plan is compared on: wide, tall, smaller than a crop, odd, tall and narrow
# (Pillow may resize the height first), longer than MAX_ASPECT on each axis.
_TRIALS = ((301, 417), (530, 333), (61, 90), (150, 1001), (520, 70), (20, 201), (201, 20))
_FLOAT32_DIGITS = 7


def load_processor(folder: Path) -> Any:
    """Return transformers' image processor of a model.

    Raises:
        ConfigurationError: The folder has no image processor, or its image processor is invalid or requires code of
            the model's repository.
    """
    from transformers import AutoImageProcessor

    config = folder / "config.json"
    names = ("preprocessor_config.json", "processor_config.json")
    files = [folder / name for name in names if (folder / name).exists()]
    settings = [_checked_settings(file) for file in files]
    if not files and not (
        config.exists() and "pretrained_cfg" in json.loads(config.read_text())  # timm's configuration
    ):
        raise ConfigurationError(
            "the model has no preprocessor_config.json, which defines its preprocessing; add that file"
        )
    try:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ValueError:
        if not any("auto_map" in values for values in settings):
            raise
        raise ConfigurationError(
            "preprocessor_config.json requires code of the model's repository ('auto_map'), which is never run; set "
            "'image_processor_type' to a class of transformers"
        ) from None


def _checked_settings(file: Path) -> dict[str, Any]:
    """Return the settings in a file. Raises ConfigurationError for invalid sizes and filters."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ConfigurationError(f"{file.name} must contain a JSON object")
    for name in ("size", "crop_size"):
        value = settings.get(name)
        for edge in value.values() if isinstance(value, dict) else [value]:
            if isinstance(edge, float) or (type(edge) is int and not 1 <= edge <= MAX_EDGE_PIXELS):
                raise ConfigurationError(
                    f"{file.name}: {name!r} must be an integer from 1 to {MAX_EDGE_PIXELS} pixels, not {edge}"
                )
    resample = settings.get("resample")
    if type(resample) is int and resample not in list(Image.Resampling):
        raise ConfigurationError(
            f"{file.name}: 'resample' must be a Pillow filter, {min(Image.Resampling)} to "
            f"{max(Image.Resampling)}, not {resample}"
        )
    return settings


def derive_plan(processor: Any) -> PreprocessingPlan | None:
    """Return a plan with the same results as transformers' image processor, or None if no plan has them.

    The results are compared on random images and may differ only because of rounding.
    `plan_candidates.explain_missing_plan` tells why there is none.
    """
    choices = [choice for choice in enumerate_candidates(processor) if choice.resample in RESAMPLES]
    normalization = _normalization(processor) if choices else None
    if normalization is None:
        return None
    trials = [_noise(size) for size in _TRIALS]
    expected = [run_processor(processor, image) for image in trials]
    for choice in choices:
        if choice.crop is None and not isinstance(choice.resize, tuple):
            continue  # images of different sizes cannot be a batch
        plan = PreprocessingPlan(normalization=normalization[0], bgr=normalization[1], **choice._asdict())
        odd = _noise(_odd_size(plan))
        if all(map(partial(_agrees, plan), trials, expected)) and _agrees(
            plan, odd, run_processor(processor, odd)
        ):
            return plan
    return None


def run_processor(processor: Any, image: np.ndarray) -> torch.Tensor:
    """Preprocess an image with transformers' image processor to float32 [3, height, width].

    Raises ConfigurationError if the image processor returns no pixels, such as ImageGPT's, which returns tokens.
    """
    # As an image, because an array three pixels high would be taken for three channels.
    outputs = processor(images=Image.fromarray(image), return_tensors="pt")
    if "pixel_values" not in outputs:
        raise ConfigurationError(
            f"{type(processor).__name__} returns {', '.join(outputs)} in place of 'pixel_values', which the network "
            "needs; use a custom handler (--handler)"
        )
    pixels: torch.Tensor = outputs["pixel_values"]
    return pixels[0].float()


def _noise(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)


def _odd_size(plan: PreprocessingPlan) -> tuple[int, int]:
    """Return an image size at which the crop's offset is 1.5 pixels, so that its rounding affects the result."""
    height, width = plan.crop or (1, 1)
    if isinstance(plan.resize, int):  # a size that the resize does not change
        min_width = max(plan.resize, width)
        return plan.resize, min_width + (width + 3 - min_width) % 4
    return height + 3, width + 3


def _normalization(processor: Any) -> tuple[Normalization, bool] | None:
    """Derive the normalization, and whether blue comes first, from the processor's results for three colors.

    Returns None if white is not brighter than black in all of three channels, or red affects other channels than one.
    """
    black, white, red = (
        run_processor(processor, np.full((64, 64, 3), color, np.uint8)).double()
        for color in (0, 255, (255, 0, 0))
    )
    if not black.shape == white.shape == red.shape or black.ndim != 3 or len(black) != 3:
        return None
    row, column = black.shape[1] // 2, black.shape[2] // 2
    low, high, mixed = (pixels[:, row, column] for pixels in (black, white, red))
    if not (high > low).all():
        return None
    std = 1 / (high - low)
    order = ((mixed - low) * std).round().tolist()
    if order not in ([1, 0, 0], [0, 0, 1]):
        return None
    return Normalization(1 / 255, _channels((0 - low) * std), _channels(std)), order == [0, 0, 1]


def _channels(values: torch.Tensor) -> tuple[float, float, float]:
    first, second, third = (float(f"{value:.{_FLOAT32_DIGITS}g}") for value in values.tolist())
    return first, second, third


def _agrees(plan: PreprocessingPlan, image: np.ndarray, expected: torch.Tensor) -> bool:
    """Return True if a plan's result agrees with the processor's.

    With another filter or crop, levels differ by ten and more.
    """
    scale, mean, std = plan.normalization
    levels = (expected.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)) / scale
    pixels = plan(image)
    if pixels.shape != levels.shape:
        return False
    difference = (pixels - levels).abs()
    return bool(difference.max() < MAX_DIFFERENCE and difference.mean() < MAX_MEAN_DIFFERENCE)
