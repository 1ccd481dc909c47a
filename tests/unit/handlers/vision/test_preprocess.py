"""Tests of converting a request's image to the engine's input."""

import base64
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DonutImageProcessor, PerceiverImageProcessor, ViTImageProcessor

from handlers.core.errors import ConfigurationError, ImageTooLarge, InvalidImage
from handlers.engines.image.types import InputSpec, Normalization
from handlers.vision.gpu_decode import DeviceDecoder
from handlers.vision.preprocess import PREPARED_PLAN, Preprocessor
from handlers.vision.preprocessing_plan import PreprocessingPlan
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


def test_photo_becomes_levels_for_the_engine(vit, photo):
    preprocessor = Preprocessor(vit)
    assert preprocessor.spec == InputSpec(224, 224, HALF)
    pixels = preprocessor.read(photo, *LIMITS)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (224, 224, 3))
    expected = ViTImageProcessor()(draw("fish", np.random.default_rng(2), (1100, 900)), return_tensors="pt")
    levels = (expected["pixel_values"][0].permute(1, 2, 0) * 0.5 + 0.5) * 255
    assert (pixels - levels).abs().mean() < 2  # the JPEG, and the decoder's scaling


def test_base64_is_decoded_and_limits_are_checked(vit, photo):
    preprocessor = Preprocessor(vit)
    text = base64.b64encode(photo).decode()
    assert torch.equal(preprocessor.read(text, *LIMITS), preprocessor.read(photo, *LIMITS))
    with pytest.raises(ImageTooLarge, match="1100 x 900"):
        preprocessor.read(photo, 900_000, 2**24)
    with pytest.raises(ImageTooLarge, match="bytes"):
        preprocessor.read(photo, 50_000_000, 1000)


@pytest.fixture
def on_device(vit):
    """Return a preprocessor that decodes on a device, which is a CPU in place of a GPU."""
    preprocessor = Preprocessor(vit)
    preprocessor.decoder = DeviceDecoder(preprocessor.plan, torch.device("cpu"))
    return preprocessor


def jpegs(count: int) -> list[bytes]:
    return [
        to_jpeg(draw("fish", np.random.default_rng(seed), (300, 250)), quality=90) for seed in range(count)
    ]


def test_inputs_are_checked_the_same_way_if_the_gpu_decodes(on_device, photo):
    assert on_device.accept(photo, *LIMITS) == photo
    assert on_device.accept(base64.b64encode(photo).decode(), *LIMITS) == photo
    with pytest.raises(ImageTooLarge, match="1100 x 900"):
        on_device.accept(photo, 900_000, 2**24)
    with pytest.raises(ImageTooLarge, match="bytes"):
        on_device.accept(photo, 50_000_000, 1000)
    with pytest.raises(InvalidImage, match="damaged or truncated"):
        on_device.accept(photo[:-100], *LIMITS)
    pixels = np.zeros((9, 9, 3), np.uint8)
    assert torch.equal(on_device.accept(pixels, *LIMITS), on_device(pixels))


def test_pixels_and_files_are_stacked_in_order(on_device):
    files = jpegs(3)
    pixels = [on_device.read(data, *LIMITS) for data in files]
    mixed = on_device.stack([files[0], pixels[1], files[2], pixels[0]])
    for row, expected in zip(mixed, [*pixels, pixels[0]], strict=True):
        assert (row.int() - expected.int()).abs().max() <= 2
    assert torch.equal(on_device.stack(pixels), torch.stack(pixels))


def test_cpu_decodes_files_that_the_gpu_rejects(on_device, monkeypatch, caplog):
    files = jpegs(2)
    expected = torch.stack([on_device.read(data, *LIMITS) for data in files])

    def rejects(self, files):
        raise RuntimeError("Error while decoding JPEG images")

    monkeypatch.setattr(DeviceDecoder, "__call__", rejects)
    assert torch.equal(on_device.stack(files), expected)
    assert "the GPU did not decode 2 JPEGs (RuntimeError)" in caplog.text
    with pytest.raises(InvalidImage):
        on_device.stack([files[0], files[1][:-100]])


def test_lost_gpu_is_raised(on_device, monkeypatch):
    def lost(self, files):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(DeviceDecoder, "__call__", lost)
    with pytest.raises(RuntimeError, match="CUDA error"):
        on_device.stack(jpegs(1))


def test_description_says_where_jpegs_are_decoded(vit):
    preprocessor = Preprocessor(vit)
    preprocessor.choose_decoder("auto", torch.device("cpu"), map)
    assert preprocessor.describe() == {
        "preprocessing": "fast",
        "preprocessing_reason": "bilinear resize to 224 x 224",
        "decode": "cpu",
        "decode_reason": "this worker has no GPU",
    }


@pytest.mark.full
def test_prepared_plan_is_read_without_transformers(tmp_path):
    plan = PreprocessingPlan((20, 30), "bilinear", None, HALF)
    (tmp_path / PREPARED_PLAN).parent.mkdir()
    plan.write(tmp_path / PREPARED_PLAN)
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


@pytest.fixture
def perceiver(tmp_path):
    """Return the folder of an image processor that crops before it resizes, for which there is no plan."""
    processor = PerceiverImageProcessor(
        size={"height": 90, "width": 80}, crop_size={"height": 100, "width": 100}
    )
    processor.save_pretrained(tmp_path)
    return tmp_path, processor


def test_processor_without_plan_is_used(perceiver, photo):
    folder, processor = perceiver
    preprocessor = Preprocessor(folder)
    assert preprocessor.plan is None
    assert preprocessor.spec == InputSpec(90, 80, None)
    assert preprocessor.describe() | {"decode_reason": ""} == {
        "preprocessing": "PerceiverImageProcessor",
        "preprocessing_reason": "PerceiverImageProcessor is not a resize followed by a center crop",
        "decode": "cpu",
        "decode_reason": "",
    }
    image = np.random.default_rng(3).integers(0, 256, (120, 3, 3), dtype=np.uint8)
    assert torch.equal(
        preprocessor(image),
        processor(images=image[12:-12], return_tensors="pt", input_data_format="channels_last")[
            "pixel_values"
        ][0],
    )
    pixels = preprocessor.read(photo, *LIMITS)
    assert (pixels.dtype, len(pixels)) == (torch.float32, 3)


def test_processor_without_plan_sees_the_corners_of_a_long_image(tmp_path):
    processor = DonutImageProcessor(size={"height": 64, "width": 64})
    processor.save_pretrained(tmp_path)
    image = np.random.default_rng(3).integers(0, 256, (16, 640, 3), dtype=np.uint8)
    expected = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(Preprocessor(tmp_path)(image), expected)


def test_model_without_preprocessor_is_rejected(tmp_path):
    with pytest.raises(ConfigurationError, match="preprocessor_config"):
        Preprocessor(tmp_path)
