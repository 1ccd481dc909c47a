"""How often our handler's first label is that of fp32 eager in PyTorch, on drawn images that no training has seen.

The packed handler is called in process, one image at a time: the network is compared, not the wire.
"""

import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import images, in_process
from benchmarks.errors import Unavailable
from benchmarks.systems.base import Workplace
from benchmarks.systems.ceiling import hosted, unpacked
from benchmarks.systems.product import packed
from training.images import LABELS


@dataclass(frozen=True)
class Agreement:
    """`same` of `images` have the same first label; `right` have the label that was drawn."""

    name: str
    precision: str
    images: int
    same: int
    right: int

    @property
    def share(self) -> float:
        return self.same / self.images

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "share": self.share}


def compare(place: Workplace, count: int, names: Sequence[tuple[str, bool]]) -> list[Agreement]:
    """Each (name, int8) against the reference, whose own row comes first."""
    context = get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        drawn = [images.photo(images.AGREEMENT_SEED, index) for index in range(count)]
        wanted = pool.submit(_reference, place.model, drawn).result()
    found = [_agreement("reference", "fp32, eager", wanted, wanted)]
    for name, int8 in names:
        try:
            archive = unpacked(packed(place, int8).path, place.root / "unpacked" / f"{name}-agreement")
            with hosted(archive, (), None) as pool:
                precision = str(pool.submit(in_process.describe).result()["precision"])
                labels = pool.submit(in_process.top_labels, drawn).result()
        except (Unavailable, OSError, RuntimeError) as error:
            place.say(f"agreement of {name}: left out: {error}")
            continue
        found.append(_agreement(name, precision, wanted, labels))
    return found


def _agreement(name: str, precision: str, wanted: Sequence[str], labels: Sequence[str]) -> Agreement:
    same = sum(label == other for label, other in zip(labels, wanted, strict=True))
    right = sum(label.endswith(f" {LABELS[i % len(LABELS)]}") for i, label in enumerate(labels))
    return Agreement(name, precision, len(wanted), same, right)


def _reference(model: Path, drawn: Sequence[bytes]) -> list[str]:
    """As a tutorial computes it: Pillow, the model's own processor, fp32."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification
    from transformers.utils import logging

    logging.disable_progress_bar()

    processor = AutoImageProcessor.from_pretrained(model)
    network = AutoModelForImageClassification.from_pretrained(model, dtype=torch.float32).eval()
    labels = []
    for data in drawn:
        inputs = processor(images=Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")
        with torch.inference_mode():
            labels.append(network.config.id2label[int(network(**inputs).logits[0].argmax())])
    return labels
