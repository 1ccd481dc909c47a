"""Entry module of the image classifier, which returns the most likely labels of an image."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handlers.core.device import FAST_BF16, Device
from handlers.core.handler import Handler
from handlers.core.parameters import Parameter
from handlers.core.tensor import Payload, Tensor, TensorSpec
from handlers.engines.image.classifier_network import blank_batch
from handlers.engines.image.engine_selection import select_engine
from handlers.vision.labels import read_labels
from handlers.vision.pixel_validation import DATATYPES
from handlers.vision.preprocess import Preprocessor
from handlers.vision.types import Image, Label, VisionConfig

DEFAULT_TOP_K = 5
WARM_UP_S = 3.0
FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}
ANSWER_SCHEMA = {
    "type": "array",
    "description": "The most likely labels of one image, the most likely first.",
    "items": {
        "type": "object",
        "required": ["label", "score"],
        "additionalProperties": False,
        "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
    },
    "examples": [[{"label": "tabby, tabby cat", "score": 0.83}, {"label": "Egyptian cat", "score": 0.09}]],
}
EXAMPLE = (  # a PNG of 16 x 16 pixels
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQMAAAAlPW0iAAAABlBMVEX13rOyIiJtMjyTAAAAJklEQVR42mNggAHmA0wsCkwc"
    "AkwCHEwMDFD04QfTjw9Mfx7AVQEAdUIG1racT0IAAAAASUVORK5CYII="
)
logger = logging.getLogger(__name__)


class ImageClassifier(Handler[Image, list[Label]]):
    """A handler for image classification with any model of transformers, timm or torchvision."""

    config_type = VisionConfig
    payload_fields = ("image", "data", "file", "inputs")
    input_tensor = TensorSpec(
        "image",
        "BYTES",
        (-1,),
        also=tuple((name, shape) for name in DATATYPES for shape in ((-1, -1, 3), (-1, -1, -1, 3))),
    )
    output_tensors = (TensorSpec("label", "BYTES", (-1, -1)), TensorSpec("score", "FP32", (-1, -1)))
    answer_schema = ANSWER_SCHEMA
    media_type = "image/*"
    example = EXAMPLE

    parallel_decode = True
    bf16_flags = FAST_BF16
    fp16_on_gpu = True

    def load(self, folder: Path, config: VisionConfig, device: Device) -> None:
        self._labels, self._function = read_labels(folder)
        self._config = config
        self._preprocess = Preprocessor(folder)
        self._engine, self._reason = select_engine(
            folder, device, self._preprocess.spec, config.engine, config.precision, config.max_batch
        )
        logger.info("engine: %s (%s)", self._engine.describe(), self._reason)
        self._preprocess.choose_decoder(config.decode, device.torch_device, self.parallel_map)
        logger.info("decoding: %s", self._preprocess.describe())

    def parameters(self) -> Sequence[Parameter]:
        return (
            Parameter(
                "top_k",
                int,
                low=1,
                help="number of labels in the answer, the most likely first; at most the model's number of labels",
                default=min(DEFAULT_TOP_K, len(self._labels)),
            ),
            Parameter(
                "function_to_apply",
                str,
                choices=tuple(FUNCTIONS),
                help="the function that converts logits to scores",
                default=self._function,
            ),
        )

    def decode(self, payload: Payload, parameters: dict[str, Any]) -> Image:
        content = self._preprocess.accept(payload, self._config.max_pixels, self._config.max_bytes)
        top_k = min(parameters.get("top_k", DEFAULT_TOP_K), len(self._labels))
        return Image(content, top_k, parameters.get("function_to_apply", self._function))

    def batches(self, items: Sequence[Image]) -> list[list[int]]:
        size = self._config.max_batch
        return [list(range(start, min(start + size, len(items)))) for start in range(0, len(items), size)]

    def predict(self, items: Sequence[Image]) -> list[list[Label]]:
        logits = self._engine.run(self._preprocess.stack([item.content for item in items]))
        max_top_k = max(item.top_k for item in items)
        top: dict[str, list[list[Label]]] = {}
        for function in {item.function for item in items}:
            scores, indices = FUNCTIONS[function](logits).topk(max_top_k)
            rows = zip(scores.tolist(), indices.tolist(), strict=True)
            top[function] = [[Label(self._labels[i], s) for s, i in zip(*row, strict=True)] for row in rows]
        return [top[item.function][row][: item.top_k] for row, item in enumerate(items)]

    def encode(self, answer: list[Label]) -> list[dict[str, Any]]:
        return [label._asdict() for label in answer]

    def outputs(self, answers: Sequence[list[Label]]) -> list[Tensor]:
        shape = (len(answers), len(answers[0]))
        labels = [label for answer in answers for label in answer]
        return [
            Tensor("label", "BYTES", shape, [label.label for label in labels]),
            Tensor("score", "FP32", shape, [label.score for label in labels]),
        ]

    def warm_up(self) -> None:
        """Run each batch size once, because engines prepare for a size at its first run. Stops after WARM_UP_S."""
        self.predict([self.decode(np.full((320, 240, 3), 127, np.uint8), {})])
        end = time.monotonic() + WARM_UP_S
        for count in range(1, min(self._config.max_batch, self.batch_size) + 1):
            if time.monotonic() > end:
                break
            self._engine.run(blank_batch(self._preprocess.spec, count))

    def describe(self) -> dict[str, Any]:
        settings = {
            "reason": self._reason,
            "labels": len(self._labels),
            "max_pixels": self._config.max_pixels,
            "max_bytes": self._config.max_bytes,
        }
        return self._engine.describe() | self._preprocess.describe() | settings
