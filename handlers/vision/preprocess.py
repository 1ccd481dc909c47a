"""A picture to the network's input, by the model's own preprocessor."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from handlers.core.errors import ConfigurationError

# Longer than this, a picture that is resized by its shorter edge would grow without bound. The crop that follows
# keeps a square in its middle, so that what lies further out is never seen.
MAX_ASPECT = 8


class Preprocessor:
    """transformers' image processor of the model, made safe against very long pictures."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoImageProcessor

        if not (folder / "preprocessor_config.json").exists():
            raise ConfigurationError(
                "the model has no preprocessor_config.json, which says how pictures are prepared"
            )
        self._processor: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        self._by_shorter_edge = "shortest_edge" in dict(getattr(self._processor, "size", None) or {})

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """A float32 tensor [3, height, width]."""
        if self._by_shorter_edge:
            image = centre(image, MAX_ASPECT)
        pixels = self._processor(images=image, return_tensors="pt")["pixel_values"]
        tensor: torch.Tensor = pixels[0].float()
        return tensor


def centre(image: Image.Image, max_aspect: int) -> Image.Image:
    """The middle of `image`, with the longer edge at most `max_aspect` times the shorter."""
    longest = max_aspect * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(size, longest) for size in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
