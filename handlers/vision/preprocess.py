"""A request's image to what the engine takes."""

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handlers.core.errors import ConfigurationError
from handlers.core.faults import is_device_lost
from handlers.core.tensor import Payload
from handlers.vision.decode import decode_image, open_image, pixels_of
from handlers.vision.gpu_decode import DeviceDecoder, choose_decoder, suitable
from handlers.vision.plan import MAX_ASPECT, Plan, center, plan_of_processor, processed, processor_of
from handlers.vision.types import InputSpec

PREPARED = Path("prepared", "preprocess.json")
"""Where packing leaves the plan, inside the model's folder; with it transformers' processors need no import."""
OWN = Path("preprocess.json")
"""The plan of a model in our own layout, such as torchvision's: its preprocessor."""
Spread = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""As `map`, over the worker's threads."""
logger = logging.getLogger(__name__)


class Preprocessor:
    """The model's own preprocessing: by a plan where one can say it, else by transformers' image processor.

    `spec` says what comes out; `plan` is None where transformers does the work.
    All but `stack` is safe to call from several threads at once.
    Raises ConfigurationError for a model that says nothing of how images are prepared.
    """

    spec: InputSpec
    plan: Plan | None

    def __init__(self, folder: Path) -> None:
        said = next((folder / path for path in (PREPARED, OWN) if (folder / path).exists()), None)
        self.decoder: DeviceDecoder | None = None
        self._reason = ""
        if said is not None:
            self.plan = Plan.read(said)
        else:
            self._processor = processor_of(folder)
            self.plan = plan_of_processor(self._processor)
        if self.plan:
            self.spec = self.plan.spec
        else:
            self.spec = self._fixed_size()

    def choose_decoder(self, wanted: str, device: torch.device, spread: Spread) -> None:
        """Where JPEGs are decoded from now on: "auto", "cpu" or "gpu"; `describe` says what came of it, and why."""
        self.decoder, self._reason = choose_decoder(
            wanted, self.plan, device, lambda files: list(spread(self._on_cpu, files))
        )

    def describe(self) -> dict[str, Any]:
        return {"decode": "gpu" if self.decoder else "cpu", "decode_reason": self._reason}

    def read(self, payload: Payload, max_pixels: int, max_bytes: int) -> torch.Tensor:
        """An image as it was sent (see `decode_image`, whose errors it raises) to one image of `spec`."""
        return self(decode_image(payload, max_pixels, max_bytes, self._at_least))

    def accept(self, payload: Payload, max_pixels: int, max_bytes: int) -> torch.Tensor | bytes:
        """As `read`, or the file of a JPEG that the GPU shall decode with others; its header and size are checked."""
        if self.decoder is None or isinstance(payload, np.ndarray):
            return self.read(payload, max_pixels, max_bytes)
        opened = open_image(payload, max_pixels, max_bytes)
        return opened.data if suitable(opened) else self(pixels_of(opened, self._at_least))

    def stack(self, images: Sequence[torch.Tensor | bytes]) -> torch.Tensor:
        """What `accept` gave for each, as a batch in the same order: on the GPU if that decodes some of it.

        Raises InvalidImage for a damaged JPEG.
        """
        decoded = self._decoded([image for image in images if isinstance(image, bytes)])
        device = decoded[0].device if decoded else None
        rows = iter(decoded)
        return torch.stack([next(rows) if isinstance(image, bytes) else image.to(device) for image in images])

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """RGB uint8 [height, width, 3] of any size to uint8 [H, W, 3], or float32 [3, H, W] without a plan."""
        if self.plan:
            return self.plan(image)
        if "shortest_edge" in dict(getattr(self._processor, "size", None) or {}):
            image = center(image, MAX_ASPECT)
        return processed(self._processor, image)

    def _fixed_size(self) -> InputSpec:
        """What transformers' processor makes of every image.

        Raises ConfigurationError where that is not one size, or no numbers.
        """
        square, wide = (self(np.full((224, width, 3), 127, np.uint8)) for width in (224, 301))
        if square.shape != wide.shape:
            sizes = " and ".join(
                f"{height} x {width}" for height, width in (square.shape[1:], wide.shape[1:])
            )
            raise ConfigurationError(
                f"preprocessor_config.json makes images of several sizes, such as {sizes}, which make no batch: "
                "set 'do_resize' and a 'size' with 'height' and 'width', or 'do_center_crop' and a 'crop_size'"
            )
        if not square.isfinite().all():
            raise ConfigurationError(
                "preprocessor_config.json makes values of images that are not finite: no 'image_std' may be 0"
            )
        return InputSpec(square.shape[1], square.shape[2], None)

    def _decoded(self, files: Sequence[bytes]) -> Sequence[torch.Tensor]:
        """By the GPU. What that refuses, or lacks memory for, the CPU decodes or says what is wrong with it."""
        if not files or self.decoder is None:
            return []
        try:
            return list(self.decoder(files))
        except Exception as error:
            if is_device_lost(error):
                raise
            logger.warning("the GPU did not decode %d JPEGs (%s)", len(files), type(error).__name__)
        return [self._on_cpu(data) for data in files]

    def _on_cpu(self, data: bytes) -> torch.Tensor:
        """A file whose limits are checked."""
        return self.read(data, sys.maxsize, sys.maxsize)

    @property
    def _at_least(self) -> tuple[int, int] | None:
        return self.plan.at_least if self.plan else None
