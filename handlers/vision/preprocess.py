"""Convert a request's image to the engine's input."""

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handlers.core.errors import ConfigurationError
from handlers.core.exception_handling import is_device_lost
from handlers.core.tensor import Payload
from handlers.engines.image.types import InputSpec
from handlers.vision.decode import decode_image, decode_pixels, open_image
from handlers.vision.gpu_decode import DeviceDecoder, choose_decoder, is_gpu_decodable
from handlers.vision.plan_candidates import explain_missing_plan
from handlers.vision.plan_derivation import derive_plan, load_processor, run_processor
from handlers.vision.preprocessing_plan import PreprocessingPlan
from handlers.vision.resize import limit_aspect_ratio

PREPARED_PLAN = Path("prepared", "preprocess.json")
"""File in the model's folder to which packing writes the plan, so that workers do not import transformers."""
MODEL_PLAN = Path("preprocess.json")
"""File with the plan of a model that has no image processor of transformers, such as torchvision's models."""
MapFunction = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""A function like `map` that may use several threads."""
MAX_PROCESSOR_ASPECT = 32
"""Maximum ratio of the edges for image processors that resize the shorter edge, which would make a longer image too
large. Only the middle of a longer image is resized."""
logger = logging.getLogger(__name__)


class Preprocessor:
    """The preprocessing of a model, with a plan if possible, otherwise with transformers' image processor.

    All methods except `stack` are thread-safe. The constructor raises ConfigurationError for a model that does not
    define its preprocessing.

    Attributes:
        spec: The shape and normalization of the results.
        plan: The plan; None if transformers' image processor is used.
    """

    spec: InputSpec
    plan: PreprocessingPlan | None

    def __init__(self, folder: Path) -> None:
        plan_file = next(
            (folder / path for path in (PREPARED_PLAN, MODEL_PLAN) if (folder / path).exists()), None
        )
        self.decoder: DeviceDecoder | None = None
        self._reason = ""
        if plan_file is not None:
            self.plan = PreprocessingPlan.read(plan_file)
        else:
            self._processor = load_processor(folder)
            self.plan = derive_plan(self._processor)
        self._max_aspect: int | None = None
        if self.plan:
            self.spec = self.plan.spec
            self._steps = {"preprocessing": "fast", "preprocessing_reason": self.plan.describe()}
        else:
            name = type(self._processor).__name__
            reason = explain_missing_plan(self._processor)
            self._steps = {"preprocessing": name, "preprocessing_reason": reason}
            self.spec = self._output_spec()
            self._max_aspect = MAX_PROCESSOR_ASPECT if self._ignores_ends() else None
            logger.info("images are preprocessed by %s: %s", name, reason)

    def choose_decoder(self, preference: str, device: torch.device, parallel_map: MapFunction) -> None:
        """Choose the device that decodes JPEGs. `preference` is "auto", "cpu" or "gpu"; see `describe`."""
        self.decoder, self._reason = choose_decoder(
            preference, self.plan, device, lambda files: list(parallel_map(self._on_cpu, files))
        )

    def describe(self) -> dict[str, Any]:
        """Return the preprocessing and the device that decodes JPEGs, with the reasons."""
        return self._steps | {"decode": "gpu" if self.decoder else "cpu", "decode_reason": self._reason}

    def read(self, payload: Payload, max_pixels: int, max_bytes: int) -> torch.Tensor:
        """Decode and preprocess an image to `spec`. Arguments and errors are those of `decode_image`."""
        return self(decode_image(payload, max_pixels, max_bytes, self._min_size))

    def accept(self, payload: Payload, max_pixels: int, max_bytes: int) -> torch.Tensor | bytes:
        """Return the result of `read`, or the checked JPEG file if the GPU will decode it with its batch."""
        if self.decoder is None or isinstance(payload, np.ndarray):
            return self.read(payload, max_pixels, max_bytes)
        opened = open_image(payload, max_pixels, max_bytes)
        return opened.data if is_gpu_decodable(opened) else self(decode_pixels(opened, self._min_size))

    def stack(self, images: Sequence[torch.Tensor | bytes]) -> torch.Tensor:
        """Stack results of `accept` in order. The batch is on the GPU if the GPU decodes at least one image.

        Raises InvalidImage for a damaged JPEG.
        """
        decoded = self._decode_files([image for image in images if isinstance(image, bytes)])
        device = decoded[0].device if decoded else None
        rows = iter(decoded)
        return torch.stack([next(rows) if isinstance(image, bytes) else image.to(device) for image in images])

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """Preprocess RGB uint8 [height, width, 3] to uint8 [H, W, 3], or without a plan to float32 [3, H, W]."""
        if self.plan:
            return self.plan(image)
        if self._max_aspect:
            image = limit_aspect_ratio(image, self._max_aspect)
        return run_processor(self._processor, image)

    def _output_spec(self) -> InputSpec:
        """Return the shape of the results of transformers' image processor.

        Raises ConfigurationError if the results differ in size or are not finite.
        """
        square, wide = (self(np.full((224, width, 3), 127, np.uint8)) for width in (224, 301))
        if square.ndim != 3:
            raise ConfigurationError(
                f"{type(self._processor).__name__} returns pixels of shape {list(square.shape)}, but the network "
                "needs [3, height, width]; use a custom handler (--handler)"
            )
        if square.shape != wide.shape:
            sizes = " and ".join(
                f"{height} x {width}" for height, width in (square.shape[1:], wide.shape[1:])
            )
            raise ConfigurationError(
                f"the settings in preprocessor_config.json result in images of different sizes, such as {sizes}, "
                "which cannot form a batch; set 'do_resize' and a 'size' with 'height' and 'width', or "
                "'do_center_crop' and a 'crop_size'"
            )
        if not square.isfinite().all():
            raise ConfigurationError(
                "the settings in preprocessor_config.json result in values that are not finite; set 'image_std' to "
                "values other than 0"
            )
        return InputSpec(square.shape[1], square.shape[2], None)

    def _ignores_ends(self) -> bool:
        """Return True if transformers' image processor ignores the ends of a long image, as a center crop does."""
        image = np.full((20, 320, 3), 127, np.uint8)
        middle = self(image)
        image[:, :80] = image[:, -80:] = 255
        return torch.equal(self(image), middle)

    def _decode_files(self, files: Sequence[bytes]) -> Sequence[torch.Tensor]:
        """Decode files on the GPU. If it fails, decode them on the CPU, whose errors name the problem of a file."""
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
        """Decode and preprocess a file whose limits have been checked."""
        return self.read(data, sys.maxsize, sys.maxsize)

    @property
    def _min_size(self) -> tuple[int, int] | None:
        return self.plan.min_size if self.plan else None
