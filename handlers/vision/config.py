"""The image classifier's settings in `model-config.yaml`. Importing this module does not import torch."""

from dataclasses import dataclass
from typing import Literal

from handlers.core.config import HandlerConfig


@dataclass(frozen=True)
class VisionConfig(HandlerConfig):
    """Settings of the image classifier."""

    engine: Literal["auto", "torch", "torch-compiled", "openvino"] = "auto"

    max_pixels: int = 50_000_000
    """Maximum number of pixels of an image. The header of a file is checked before the image is decoded."""

    max_bytes: int = 16 * 2**20
    """Maximum size of an image file in bytes."""

    max_batch: int = 32
    """Maximum number of images in one run of the network. Larger batches take several runs."""

    decode: Literal["auto", "cpu", "gpu"] = "auto"
    """Device that decodes JPEGs. `auto`: the worker's GPU if it is clearly faster than the CPU, else the CPU."""
