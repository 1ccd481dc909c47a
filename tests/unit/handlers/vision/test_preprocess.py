"""A request's image to what the engine takes."""

import base64
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import MobileViTImageProcessor, ViTImageProcessor

from handlers.core.errors import ConfigurationError, ImageTooLarge, InvalidImage
from handlers.vision.gpu_decode import DeviceDecoder
from handlers.vision.plan import Plan
from handlers.vision.preprocess import PREPARED, Preprocessor
from handlers.vision.types import InputSpec, Normalization
from training.images import draw, to_jpeg

HALF = Normalization(1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LIMITS = (50_000_000, 2**24)


@pytest.fixture
def photo() -> bytes:
    return to_jpeg(draw("fish", np.random.default_rng(2), (1100, 900)), quality=90)


@pytest.fixture
def vit(tmp_path):
    ViTImageProcessor().save_pretrained(tmp_path)
    return tmp_path


def test_a_photo_becomes_levels_that_the_engine_normalizes(vit, photo):
    preprocessor = Preprocessor(vit)
    assert preprocessor.spec == InputSpec(224, 224, HALF)
    pixels = preprocessor.read(photo, *LIMITS)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (224, 224, 3))
    expected = ViTImageProcessor()(draw("fish", np.random.default_rng(2), (1100, 900)), return_tensors="pt")
    levels = (expected["pixel_values"][0].permute(1, 2, 0) * 0.5 + 0.5) * 255
    assert (pixels - levels).abs().mean() < 2  # the JPEG, and the decoder's scaling


def test_base64_and_limits(vit, photo):
    preprocessor = Preprocessor(vit)
    text = base64.b64encode(photo).decode()
    assert torch.equal(preprocessor.read(text, *LIMITS), preprocessor.read(photo, *LIMITS))
    with pytest.raises(ImageTooLarge, match="1100 x 900"):
        preprocessor.read(photo, 900_000, 2**24)
    with pytest.raises(ImageTooLarge, match="bytes"):
        preprocessor.read(photo, 50_000_000, 1000)


@pytest.fixture
def on_device(vit):
    """As on a GPU that decodes, with a CPU in its place."""
    preprocessor = Preprocessor(vit)
    preprocessor.decoder = DeviceDecoder(preprocessor.plan, torch.device("cpu"))
    return preprocessor


def jpegs(count: int) -> list[bytes]:
    return [
        to_jpeg(draw("fish", np.random.default_rng(seed), (300, 250)), quality=90) for seed in range(count)
    ]


def test_requests_are_read_alike_where_the_gpu_decodes(on_device, photo):
    assert on_device.accept(photo, *LIMITS) == photo
    assert on_device.accept(base64.b64encode(photo).decode(), *LIMITS) == photo
    with pytest.raises(ImageTooLarge, match="1100 x 900"):
        on_device.accept(photo, 900_000, 2**24)
    with pytest.raises(ImageTooLarge, match="bytes"):
        on_device.accept(photo, 50_000_000, 1000)
    with pytest.raises(InvalidImage, match="damaged or cut off"):
        on_device.accept(photo[:-100], *LIMITS)
    pixels = np.zeros((9, 9, 3), np.uint8)
    assert torch.equal(on_device.accept(pixels, *LIMITS), on_device(pixels))


def test_pixels_and_files_become_one_batch_in_order(on_device):
    files = jpegs(3)
    pixels = [on_device.read(data, *LIMITS) for data in files]
    mixed = on_device.stack([files[0], pixels[1], files[2], pixels[0]])
    for row, expected in zip(mixed, [*pixels, pixels[0]], strict=True):
        assert (row.int() - expected.int()).abs().max() <= 2
    assert torch.equal(on_device.stack(pixels), torch.stack(pixels))


def test_the_cpu_decodes_what_the_gpu_refuses(on_device, monkeypatch, caplog):
    files = jpegs(2)
    expected = torch.stack([on_device.read(data, *LIMITS) for data in files])

    def refuses(self, files):
        raise RuntimeError("Error while decoding JPEG images")

    monkeypatch.setattr(DeviceDecoder, "__call__", refuses)
    assert torch.equal(on_device.stack(files), expected)
    assert "the GPU did not decode 2 JPEGs (RuntimeError)" in caplog.text
    with pytest.raises(InvalidImage):
        on_device.stack([files[0], files[1][:-100]])


def test_a_lost_gpu_is_not_hidden(on_device, monkeypatch):
    def lost(self, files):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(DeviceDecoder, "__call__", lost)
    with pytest.raises(RuntimeError, match="CUDA error"):
        on_device.stack(jpegs(1))


def test_where_jpegs_are_decoded_is_described(vit):
    preprocessor = Preprocessor(vit)
    preprocessor.choose_decoder("auto", torch.device("cpu"), map)
    assert preprocessor.describe() == {"decode": "cpu", "decode_reason": "this worker has no GPU"}


def test_what_was_prepared_is_taken_without_transformers(tmp_path):
    plan = Plan((20, 30), "bilinear", None, HALF)
    (tmp_path / PREPARED).parent.mkdir()
    plan.write(tmp_path / PREPARED)
    code = f"""
import sys
from pathlib import Path
import numpy as np
from handlers.vision.preprocess import Preprocessor
preprocessor = Preprocessor(Path({str(tmp_path)!r}))
assert preprocessor(np.zeros((50, 50, 3), np.uint8)).shape == (20, 30, 3)
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_processor_without_a_plan_does_its_own_work(tmp_path, photo):
    processor = MobileViTImageProcessor(size={"shortest_edge": 100}, crop_size={"height": 90, "width": 80})
    processor.save_pretrained(tmp_path)
    preprocessor = Preprocessor(tmp_path)
    assert preprocessor.plan is None
    assert preprocessor.spec == InputSpec(90, 80, None)
    image = np.random.default_rng(3).integers(0, 256, (120, 3, 3), dtype=np.uint8)
    expected = processor(images=image[48:72], input_data_format="channels_last", return_tensors="pt")
    assert torch.equal(preprocessor(image), expected["pixel_values"][0])
    assert (preprocessor.read(photo, *LIMITS).dtype, len(preprocessor.read(photo, *LIMITS))) == (
        torch.float32,
        3,
    )


def test_a_model_without_a_preprocessor_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="preprocessor_config"):
        Preprocessor(tmp_path)
