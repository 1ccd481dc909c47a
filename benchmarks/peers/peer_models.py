"""The models of the other servers, loaded as in the model cards on the hub."""

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Classifier:
    def __init__(self, folder: Path, device: str = DEVICE) -> None:
        self.processor = AutoImageProcessor.from_pretrained(folder)
        model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32)
        self.model = model.to(device).eval()

    def decode(self, request: dict[str, Any]) -> Image.Image:
        return open_image(base64.b64decode(request["image"]))

    def predict(self, images: Sequence[Image.Image]) -> list[list[dict[str, Any]]]:
        """Return the five best labels of each decoded image, with scores."""
        inputs = self.processor(images=images, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            top = self.model(**inputs).logits.softmax(-1).topk(5)
        labels = self.model.config.id2label
        rows = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [[{"label": labels[i], "score": s} for i, s in zip(*row, strict=True)] for row in rows]


class Summarizer:
    def __init__(
        self, folder: Path, device: str = DEVICE, precision: str = "float32", model: Any = None
    ) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        if model is None:
            model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=getattr(torch, precision)).eval()
        self.model = model.to(device)

    def decode(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return request["text"], request["parameters"]

    def predict(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, str]]:
        """Return a summary of each text. All summaries are generated up to the longest length, then truncated."""
        texts, parameters = zip(*requests, strict=True)
        lengths = [settings["max_new_tokens"] for settings in parameters]
        shared = {**parameters[0], "min_new_tokens": max(lengths), "max_new_tokens": max(lengths)}
        inputs = self.tokenizer(list(texts), return_tensors="pt", truncation=True, padding=True)
        with torch.inference_mode():
            rows = self.model.generate(**inputs.to(self.model.device), **shared)
        rows = [row[: 1 + length] for row, length in zip(rows, lengths, strict=True)]
        summaries = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [{"summary_text": summary} for summary in summaries]


def open_image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def load_model(**options: Any) -> Any:
    """Load the model in the folder MODEL, for the task TASK."""
    model_type = {"image": Classifier, "text": Summarizer}[os.environ["TASK"]]
    return model_type(Path(os.environ["MODEL"]), **options)
