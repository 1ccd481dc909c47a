"""The image classifier's items and answers, and its settings."""

from typing import NamedTuple

import torch

from handlers.vision.config import VisionConfig

__all__ = ["Image", "InputSpec", "Label", "Normalization", "VisionConfig"]


class Normalization(NamedTuple):
    """A level 0..255 of each channel becomes (level * scale - mean) / std."""

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class InputSpec(NamedTuple):
    """What an engine gets: with a normalization, which is then the engine's, uint8 [n, height, width, 3]; without
    one float32 [n, 3, height, width], ready for the network.
    """

    height: int
    width: int
    normalization: Normalization | None


class Image(NamedTuple):
    """`content`: uint8 [height, width, 3] or float32 [3, height, width], as the `InputSpec` says, or the file of a
    JPEG that the GPU shall decode.
    """

    content: torch.Tensor | bytes
    top_k: int
    function: str


class Label(NamedTuple):
    label: str
    score: float
