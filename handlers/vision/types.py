"""The image classifier's settings, items and answers."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from handlers.core.config import HandlerConfig


@dataclass(frozen=True)
class VisionConfig(HandlerConfig):
    """Settings of the image classifier."""

    max_pixels: int = 50_000_000
    """Pixels of one picture; more is refused by the header, before anything is decoded."""

    max_bytes: int = 16 * 2**20
    """Bytes of one picture's file."""

    max_batch: int = 32
    """Pictures that go through the network at once; what a batch holds beyond that follows in a further run."""


class Picture(NamedTuple):
    """`pixels`: float32 [3, height, width]."""

    pixels: torch.Tensor
    top_k: int
    function: str


class Label(NamedTuple):
    label: str
    score: float
