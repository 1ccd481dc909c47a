"""The image classifier's entry: a picture to its likeliest labels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handlers.core.device import Device
from handlers.core.handler import Handler
from handlers.core.parameters import Parameter
from handlers.core.tensor import Payload, Tensor
from handlers.engines.base import Engine
from handlers.engines.torch_classifier import TorchClassifier
from handlers.vision.decode import decode_image
from handlers.vision.preprocess import Preprocessor
from handlers.vision.types import Label, Picture, VisionConfig

DEFAULT_TOP_K = 5
FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}


class ImageClassifier(Handler[Picture, list[Label]]):
    """Any classifier of transformers, with its own preprocessing and labels."""

    config_type = VisionConfig
    payload_fields = ("image", "data", "file", "inputs")

    def load(self, folder: Path, config: VisionConfig, device: Device) -> None:
        from transformers import AutoConfig

        settings = AutoConfig.from_pretrained(folder, local_files_only=True)
        self._labels = [settings.id2label[index] for index in range(settings.num_labels)]
        several_may_be_right = (
            settings.problem_type == "multi_label_classification" or settings.num_labels == 1
        )
        self._function = "sigmoid" if several_may_be_right else "softmax"
        self._config = config
        self._preprocess = Preprocessor(folder)
        self._engine: Engine[torch.Tensor, torch.Tensor] = TorchClassifier()
        self._engine.load(folder, device)

    def parameters(self) -> Sequence[Parameter]:
        return (
            Parameter(
                "top_k", int, low=1, high=len(self._labels), help="labels in the answer, the likeliest first"
            ),
            Parameter("function_to_apply", str, choices=tuple(FUNCTIONS), help="what makes scores of logits"),
        )

    def decode(self, payload: Payload, parameters: dict[str, Any]) -> Picture:
        pixels = self._preprocess(decode_image(payload, self._config.max_pixels, self._config.max_bytes))
        top_k = parameters.get("top_k", min(DEFAULT_TOP_K, len(self._labels)))
        return Picture(pixels, top_k, parameters.get("function_to_apply", self._function))

    def batches(self, items: Sequence[Picture]) -> list[list[int]]:
        size = self._config.max_batch
        return [list(range(start, min(start + size, len(items)))) for start in range(0, len(items), size)]

    def predict(self, items: Sequence[Picture]) -> list[list[Label]]:
        logits = self._engine.run(torch.stack([item.pixels for item in items]))
        return [self._top(item, row) for item, row in zip(items, logits, strict=True)]

    def _top(self, item: Picture, logits: torch.Tensor) -> list[Label]:
        scores, indices = FUNCTIONS[item.function](logits).topk(item.top_k)
        return [
            Label(self._labels[index], score)
            for index, score in zip(indices.tolist(), scores.tolist(), strict=True)
        ]

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
        grey = np.full((224, 224, 3), 127, np.uint8)
        for count in (1, min(2, self._config.max_batch)):
            self.predict([self.decode(grey, {})] * count)

    def describe(self) -> dict[str, Any]:
        return self._engine.describe() | {"labels": len(self._labels), "max_pixels": self._config.max_pixels}
