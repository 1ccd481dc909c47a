"""The image classifier's items and answers, and its settings."""

from typing import NamedTuple

import torch

from handlers.vision.config import VisionConfig

__all__ = ["Image", "Label", "VisionConfig"]


class Image(NamedTuple):
    """The classifier's item: one image and its parameters.

    Attributes:
        content: uint8 [height, width, 3] or float32 [3, height, width], depending on the `InputSpec`; or a JPEG file
            that the GPU will decode.
        top_k: The number of labels in the answer.
        function: The name of the function that converts logits to scores.
    """

    content: torch.Tensor | bytes
    top_k: int
    function: str


class Label(NamedTuple):
    """A label with its score."""

    label: str
    score: float
