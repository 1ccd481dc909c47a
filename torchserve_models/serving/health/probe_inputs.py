"""Probe input of each task: a small request that only a working model can answer."""

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

TEXT = "The server asks itself a short question. It wants to know whether the model answers."
GENERATION_PARAMETERS: Mapping[str, Any] = {"num_beams": 1, "min_new_tokens": 0, "max_new_tokens": 2}
"""Generation parameters that make the probe's summary as short as possible."""


def make_image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "gray").save(buffer, "PNG")
    return buffer.getvalue()
