"""A request's picture to what the engine takes."""

from pathlib import Path

import numpy as np
import torch

from handlers.core.tensor import Payload
from handlers.vision.decode import decode_image
from handlers.vision.plan import MAX_ASPECT, Plan, centre, plan_of_processor, processed, processor_of
from handlers.vision.types import InputSpec

PREPARED = Path("prepared", "preprocess.json")
"""Where packing leaves the plan, inside the model's folder; with it transformers' processors need no import."""


class Preprocessor:
    """The model's own preprocessing: by a plan where one can say it, else by transformers' image processor.

    `spec` says what comes out; `plan` is None where transformers does the work.
    Safe to call from several threads at once.
    Raises ConfigurationError for a model that says nothing of how pictures are prepared.
    """

    spec: InputSpec
    plan: Plan | None

    def __init__(self, folder: Path) -> None:
        prepared = folder / PREPARED
        if prepared.exists():
            self.plan = Plan.read(prepared)
        else:
            self._processor = processor_of(folder)
            self.plan = plan_of_processor(self._processor)
        if self.plan:
            self.spec = self.plan.spec
        else:
            _, height, width = self(np.full((224, 224, 3), 127, np.uint8)).shape
            self.spec = InputSpec(height, width, None)

    def read(self, payload: Payload, max_pixels: int, max_bytes: int) -> torch.Tensor:
        """A picture as it was sent (see `decode_image`, whose errors it raises) to one picture of `spec`."""
        at_least = self.plan.at_least if self.plan else None
        return self(decode_image(payload, max_pixels, max_bytes, at_least))

    def __call__(self, picture: np.ndarray) -> torch.Tensor:
        """RGB uint8 [height, width, 3] of any size to uint8 [H, W, 3], or float32 [3, H, W] without a plan."""
        if self.plan:
            return self.plan(picture)
        if "shortest_edge" in dict(getattr(self._processor, "size", None) or {}):
            picture = centre(picture, MAX_ASPECT)
        return processed(self._processor, picture)
