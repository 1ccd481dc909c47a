"""The input types of an image classification engine."""

from typing import NamedTuple


class Normalization(NamedTuple):
    """The normalization of each channel's level (0 to 255): (level * scale - mean) / std."""

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class InputSpec(NamedTuple):
    """The format of an engine's input batch.

    With a normalization, which the engine applies, batches are uint8 [n, height, width, 3]. Without a normalization,
    they are float32 [n, 3, height, width], ready for the network.
    """

    height: int
    width: int
    normalization: Normalization | None
