"""What the machine could do without a server: the product's own handler, called in a process of its own.

Each function runs in a spawned process whose initialiser is `load`.
"""

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from torchserve_models.loadgen import Measurement

if TYPE_CHECKING:
    from handlers.image_classifier import ImageClassifier
    from handlers.vision.types import Image

_handler: "ImageClassifier"
_images: Sequence[bytes] = ()
_AHEAD = 3  # batches that are decoded or being decoded while one is in the network


class _Context:
    """As much of a worker's context as loading needs."""

    class metrics:
        cache: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, archive: Path, config: dict[str, Any]) -> None:
        import torch

        self.model_name = "model"
        self.manifest: dict[str, Any] = {}
        self.model_yaml_config = config
        gpu = 0 if torch.cuda.is_available() else None
        self.system_properties = {"model_dir": str(archive), "gpu_id": gpu, "batch_size": 8}


def load(archive: Path, images: Sequence[bytes], threads: int | None, precision: str | None = None) -> None:
    """`archive` is an unpacked one; `threads` and `precision` replace what its configuration says."""
    global _handler, _images
    from handlers.image_classifier import ImageClassifier

    config = yaml.safe_load((archive / "model-config.yaml").read_text())
    changes = {"threads": threads, "precision": precision}
    config["handler"] |= {key: value for key, value in changes.items() if value is not None}
    _handler = ImageClassifier()
    _handler.initialize(_Context(archive, config))
    _images = images


def describe() -> dict[str, Any]:
    return {"pid": os.getpid(), **_handler.description()}


def _decode(image: bytes) -> "Image":
    return _handler.decode(image, {})


def serial(size: int, seconds: float) -> Measurement:
    """Batches one after the other: decode, then the network. Those of one image have the least latency there is."""
    outcome = Measurement(seconds)
    images = itertools.cycle(_images)
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        outcome.completed += len(_handler.predict([_decode(next(images)) for _ in range(size)]))
        outcome.latencies.append(time.perf_counter() - begin)
    outcome.seconds += time.perf_counter() - end
    return outcome


def batches(size: int, seconds: float) -> Measurement:
    """Whole batches; the next ones are decoded by a pool meanwhile."""
    outcome = Measurement(seconds)
    with ThreadPoolExecutor(cores()) as pool:
        ready = _decoded(pool, size)
        _handler.predict(next(ready))  # the pool is busy now
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            outcome.completed += len(_handler.predict(next(ready)))
    outcome.seconds += time.perf_counter() - end
    return outcome


def _decoded(pool: ThreadPoolExecutor, size: int) -> "Iterator[list[Image]]":
    images = itertools.cycle(_images)
    waiting: list[list[Future[Image]]] = []
    while True:
        while len(waiting) < _AHEAD:
            waiting.append([pool.submit(_decode, next(images)) for _ in range(size)])
        yield [future.result() for future in waiting.pop(0)]


def top_labels(images: Sequence[bytes]) -> list[str]:
    """The likeliest label of each, one image at a time, as an idle server would compute it."""
    return [_handler.predict([_decode(image)])[0][0].label for image in images]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
