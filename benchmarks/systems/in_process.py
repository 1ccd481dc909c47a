"""The handler without a server, called in a separate process: an upper bound for any server.

Each function runs in a spawned process that was initialized with `load_handler`.
"""

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import yaml

from handlers.core.device import usable_cores
from torchserve_models.loadgen import Measurement

if TYPE_CHECKING:
    from handlers.image_classifier import ImageClassifier
    from handlers.vision.types import Image

PREFETCHED_BATCHES = 3
"""Number of batches that are decoded in advance."""

_handler: "ImageClassifier"
_images: Sequence[bytes] = ()


def start_process(
    archive: Path, images: Sequence[bytes] = (), threads: int | None = None
) -> ProcessPoolExecutor:
    """Start a process with the handler of an unpacked archive, in which this module's functions can run."""
    return ProcessPoolExecutor(1, get_context("spawn"), load_handler, (archive, images, threads))


def load_handler(archive: Path, images: Sequence[bytes], threads: int | None) -> None:
    """Load the handler of an unpacked archive; `threads` overrides its configuration."""
    global _handler, _images
    import torch

    from handlers.image_classifier import ImageClassifier

    config = yaml.safe_load((archive / "model-config.yaml").read_text())
    if threads is not None:
        config["handler"]["threads"] = threads
    gpu = 0 if torch.cuda.is_available() else None
    context = SimpleNamespace(  # the part of a worker's context that loading needs
        model_name="model",
        manifest={},
        model_yaml_config=config,
        system_properties={"model_dir": str(archive), "gpu_id": gpu, "batch_size": 8},
        metrics=SimpleNamespace(cache={}),
    )
    _handler = ImageClassifier()
    _handler.initialize(context)
    _images = images


def describe() -> dict[str, Any]:
    return {"pid": os.getpid(), **_handler.description()}


def run_batches(batch_size: int, prefetch: bool, seconds: float) -> Measurement:
    """Compute batches, while a thread pool decodes the next ones (`prefetch`) or after decoding them.

    One image at a time without `prefetch` has the lowest possible latency.
    """
    measurement = Measurement(seconds)
    with ThreadPoolExecutor(usable_cores()) as pool:
        batches = _decode_batches(batch_size, pool if prefetch else None)
        _handler.predict(next(batches))  # from here on the pool is busy
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            measurement.completed += len(_handler.predict(next(batches)))
            measurement.latencies.append(time.perf_counter() - begin)
        measurement.seconds += time.perf_counter() - end
    return measurement


def _decode_batches(batch_size: int, pool: ThreadPoolExecutor | None) -> "Iterator[list[Image]]":
    """Yield decoded batches. A pool decodes `PREFETCHED_BATCHES` in advance."""
    images = itertools.cycle(_images)
    pending: list[list[Future[Image]]] = []
    while pool is None:
        yield [_handler.decode(next(images), {}) for _ in range(batch_size)]
    while True:
        while len(pending) < PREFETCHED_BATCHES:
            pending.append([pool.submit(_handler.decode, next(images), {}) for _ in range(batch_size)])
        yield [future.result() for future in pending.pop(0)]


def predict_labels(images: Sequence[bytes]) -> list[str]:
    """Return the best label of each image. Images are computed one at a time, as by an idle server."""
    return [_handler.predict([_handler.decode(image, {})])[0][0].label for image in images]
