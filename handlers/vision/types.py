"""The image classifier's settings, items and answers."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from handlers.core.config import HandlerConfig


@dataclass(frozen=True)
class VisionConfig(HandlerConfig):
    """Settings of the image classifier."""

    engine: Literal["auto", "torch", "torch-compiled", "openvino"] = "auto"

    max_pixels: int = 50_000_000
    """Pixels of one picture; more is refused by the header, before anything is decoded."""

    max_bytes: int = 16 * 2**20
    """Bytes of one picture's file."""

    max_batch: int = 32
    """Pictures that go through the network at once; what a batch holds beyond that follows in a further run."""

    decode: Literal["auto", "cpu", "gpu"] = "auto"
    """Where JPEGs are decoded; `auto` is the GPU where a worker has one and it is clearly faster than its cores."""


class Normalisation(NamedTuple):
    """A level 0..255 of each channel becomes (level * scale - mean) / std."""

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class InputSpec(NamedTuple):
    """What an engine gets: with a normalisation, which is then the engine's, uint8 [n, height, width, 3]; without
    one float32 [n, 3, height, width], ready for the network.
    """

    height: int
    width: int
    normalisation: Normalisation | None


class Picture(NamedTuple):
    """`content`: uint8 [height, width, 3] or float32 [3, height, width], as the `InputSpec` says, or the file of a
    JPEG that the GPU shall decode.
    """

    content: torch.Tensor | bytes
    top_k: int
    function: str


class Label(NamedTuple):
    label: str
    score: float
