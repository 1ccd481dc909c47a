"""The preprocessing of a model as numbers, which takes a tenth of the time of a model's image processor."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from handlers.engines.image.types import InputSpec, Normalization
from handlers.vision.resize import (
    NEAREST,
    Fit,
    Library,
    ResizeFunction,
    ResizeOptions,
    Size,
    output_size,
    resize_and_crop,
    resize_on_cpu,
)

MIN_DECODE_SCALE = 2
"""Minimum ratio between the size of a reduced JPEG and the size after the resize, so that the resize's filter
determines the result. At 1, decoding is a tenth faster, and the differences are four times as large."""


@dataclass(frozen=True)
class PreprocessingPlan:
    """A resize and a center crop, followed by a normalization that the engine applies.

    Attributes:
        resize: Pixels of the shorter edge, or (height, width), or None for no resize.
        resample: One of RESAMPLES. All but the nearest are antialiased, which is torchvision's default.
        crop: (height, width). A smaller image is padded.
        normalization: The engine's normalization, in the order of the network's channels.
        rounding: Rounding of half pixels in the crop's offset: "down" as in transformers, or to "even" numbers as in
            torchvision and timm.
        fit: The size after the resize, see `output_size`.
        library: The library whose resize is reproduced.
        fill: The padding, RGB.
        bgr: True if the network expects blue first.
    """

    resize: int | Size | None
    resample: str
    crop: Size | None
    normalization: Normalization
    rounding: str = "down"
    fit: Fit = "default"
    library: Library = "torch"
    fill: tuple[int, int, int] = (0, 0, 0)
    bgr: bool = False

    @property
    def spec(self) -> InputSpec:
        height, width = self.crop or self._fixed_size
        return InputSpec(height, width, self.normalization)

    @property
    def min_size(self) -> Size | None:
        """Minimum height and width for decoding; None for full size."""
        if self.resize is None or self.resample == NEAREST:  # which depends on single pixels
            return None
        height, width = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        return MIN_DECODE_SCALE * height, MIN_DECODE_SCALE * width

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """Preprocess uint8 RGB [height, width, 3] of any size to uint8 [H, W, 3] of `spec`. Thread-safe."""
        if not (image.flags.writeable and image.flags.c_contiguous):
            image = image.copy()  # torch needs writable, contiguous memory
        return self.apply(torch.from_numpy(image), resize_on_cpu)

    def apply(self, image: torch.Tensor, resize: ResizeFunction) -> torch.Tensor:
        """Preprocess a tensor with any strides on its device, with the given resize function."""
        target = output_size((image.shape[0], image.shape[1]), self.resize, self.fit)
        options = ResizeOptions(self.resample, self.library, self.rounding, self.fill, resize)
        pixels = resize_and_crop(image, target, self.crop or target, options)
        return torch.stack(pixels.unbind(-1)[::-1], -1) if self.bgr else pixels  # a third of the time of flip

    def describe(self) -> str:
        """Return the steps in words, such as "bicubic resize to 256 x 256, center crop to 224 x 224"."""
        match self.resize:
            case None:
                steps = []
            case int(edge):
                steps = [f"{self.resample} resize of the shorter edge to {edge}"]
            case (height, width):
                verb = {"cover": "to cover", "contain": "to fit into"}.get(self.fit, "to")
                steps = [f"{self.resample} resize {verb} {height} x {width}"]
        if self.crop:
            steps.append(f"center crop to {self.crop[0]} x {self.crop[1]}")
        return ", ".join(steps + ["BGR"] * self.bgr)

    @property
    def _fixed_size(self) -> Size:
        if not isinstance(self.resize, tuple):
            raise ValueError("without a crop, only a resize to an exact size makes all images equal in size")
        return self.resize

    def write(self, path: Path) -> None:
        values = asdict(self) | {"normalization": self.normalization._asdict()}
        path.write_text(json.dumps(values, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "PreprocessingPlan":
        """Read a plan. Fields that are missing, as in archives of older versions, have their defaults."""
        values = json.loads(path.read_text())
        normalization = values.pop("normalization")
        scale, mean, std = (normalization[name] for name in Normalization._fields)
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(normalization=Normalization(scale, tuple(mean), tuple(std)), **values)
