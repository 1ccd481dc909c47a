"""The image classifier's settings in `model-config.yaml`; apart, so that packing reads them without torch."""

from dataclasses import dataclass
from typing import Literal

from handlers.core.config import HandlerConfig


@dataclass(frozen=True)
class VisionConfig(HandlerConfig):
    """Settings of the image classifier."""

    engine: Literal["auto", "torch", "torch-compiled", "openvino"] = "auto"

    max_pixels: int = 50_000_000
    """Pixels of one image; more is refused by the header, before anything is decoded."""

    max_bytes: int = 16 * 2**20
    """Bytes of one image's file."""

    max_batch: int = 32
    """Images that go through the network at once; what a batch holds beyond that follows in a further run."""

    decode: Literal["auto", "cpu", "gpu"] = "auto"
    """Where JPEGs are decoded; `auto` is the GPU where a worker has one and it is clearly faster than its cores."""
