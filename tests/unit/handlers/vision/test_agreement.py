"""Comparison of labels: fast decoding and preprocessing against Pillow and transformers' image processor."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageClassification

from handlers.vision.decode import to_rgb
from handlers.vision.preprocess import Preprocessor
from tests.real_models import labeled_photos, mobilenet_folder
from training.classifier import HELD_OUT_SEED
from training.images import draw_image, to_jpeg

STARTER = Path(__file__).parents[4] / "models" / "resnet-50" / "starter"
BATCH = 50


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread, because the images are already processed in several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def photograph(index: int) -> bytes:
    """Return the middle of a drawn image as a JPEG of a photo's size, which the decoder reduces by half."""
    side = 1024 + index % 128
    image = Image.open(io.BytesIO(draw_image(HELD_OUT_SEED, index)[1]))
    return to_jpeg(ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR), quality=85)


class Paths:
    """A network with both paths from a file to its input: the exact path and the fast path."""

    def __init__(self, folder: Path) -> None:
        self.fast = Preprocessor(folder)
        self.exact = AutoImageProcessor.from_pretrained(folder)
        network = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32)
        self.network = network.to(memory_format=torch.channels_last)

    def both(self, data: bytes) -> tuple[torch.Tensor, torch.Tensor]:
        image = to_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        exact = self.exact(images=image, return_tensors="pt")["pixel_values"][0]
        scale, mean, std = self.fast.spec.normalization
        levels = self.fast.read(data, 50_000_000, 2**25)
        return exact, ((levels * scale - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)

    @torch.inference_mode()
    def scores(self, files: list[bytes]) -> Iterator[torch.Tensor]:
        """Yield the scores [n, labels] of the exact path, then those of the fast path."""
        with ThreadPoolExecutor() as pool:
            pixels = list(pool.map(self.both, files))
        for images in zip(*pixels, strict=True):
            batch = torch.stack(images).contiguous(memory_format=torch.channels_last)
            yield self.network(batch).logits.softmax(-1)


@pytest.mark.full
@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_reduced_decoding_keeps_labels_of_large_images(count):
    paths = Paths(STARTER)
    same = 0
    for start in range(0, count, BATCH):
        with ThreadPoolExecutor() as pool:
            files = list(pool.map(photograph, range(start, start + BATCH)))
        exact, fast = paths.scores(files)
        same += int((exact.argmax(-1) == fast.argmax(-1)).sum())
    assert same >= 0.995 * count


@pytest.mark.full
def test_reduced_decoding_keeps_labels_of_real_photos(shared_data, tmp_path):
    paths = Paths(mobilenet_folder(shared_data, tmp_path))
    exact, fast = paths.scores([path.read_bytes() for path, _ in labeled_photos(shared_data)])
    assert exact.argmax(-1).tolist() == fast.argmax(-1).tolist()
    assert (exact - fast).abs().max() < 0.03
