"""Agreement of this repository's best labels with those of PyTorch in fp32, on images not used for training."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from benchmarks.scenarios import images
from training.images import LABELS

AGREEMENT_IMAGES = 300


def measure_agreement(predict: Callable[[Sequence[bytes]], list[str]], model: Path) -> dict[str, int]:
    """Return the numbers of labels that match the reference, and that are the drawn ones.

    Args:
        predict: Returns the best label of each JPEG.
        model: The folder of the model that the reference is computed with.
    """
    photos = _draw_photos()
    labels, reference = predict(photos), _compute_reference(model)
    same = sum(label == expected for label, expected in zip(labels, reference, strict=True))
    return {
        "images": len(photos),
        "same": same,
        "correct": _count_correct(labels),
        "reference_correct": _count_correct(reference),
    }


def _draw_photos() -> list[bytes]:
    return [images.draw_photo(images.AGREEMENT_SEED, index) for index in range(AGREEMENT_IMAGES)]


def _count_correct(labels: Sequence[str]) -> int:
    return sum(label.endswith(f" {LABELS[index % len(LABELS)]}") for index, label in enumerate(labels))


@cache
def _compute_reference(model: Path) -> list[str]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_predict_reference, model).result()


def _predict_reference(model: Path) -> list[str]:
    """Compute labels in the same way as the other servers: Pillow, the processor of transformers, and fp32."""
    from benchmarks.peers.peer_models import Classifier, open_image

    classifier = Classifier(model, "cpu")
    return [classifier.predict([open_image(photo)])[0][0]["label"] for photo in _draw_photos()]
