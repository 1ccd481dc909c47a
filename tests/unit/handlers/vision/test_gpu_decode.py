"""Tests of decoding JPEGs on a device: agreement with the CPU, and the choice of the decoder.

A CPU replaces the GPU, except in tests that require one.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.core.errors import InvalidImage
from handlers.engines.image.types import Normalization
from handlers.vision import gpu_decode
from handlers.vision.decode import decode_image, open_image
from handlers.vision.gpu_decode import (
    DeviceDecoder,
    choose_decoder,
    is_gpu_decodable,
    resize_on_gpu,
    sample_jpegs,
)
from handlers.vision.preprocessing_plan import PreprocessingPlan
from tests.unit.handlers.vision.test_jpeg import drawn, saved, turned

LIMIT = 50_000_000
CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
HALF = Normalization(1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLAN = PreprocessingPlan(73, "bicubic", (64, 64), HALF)
PLANS = [
    PLAN,
    PreprocessingPlan(64, "bilinear", (90, 50), HALF),  # black above and below
    PreprocessingPlan((60, 80), "lanczos", None, HALF),
    PreprocessingPlan(None, "bilinear", (64, 64), HALF),
]
SIZES = [(640, 480), (479, 641), (73, 73), (33, 20), (1, 1), (7, 301), (900, 40)]


def max_difference(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


def on_cpu(plan: PreprocessingPlan, files) -> list[torch.Tensor]:
    """Decode files at full size on the CPU, as the device does, and preprocess them."""
    return [plan(decode_image(data, LIMIT)) for data in files]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.resize}-{plan.resample}")
def test_batch_has_the_pixels_of_the_plan(plan):
    files = [saved(drawn(*size)) for size in SIZES]
    files += [saved(drawn(203, 149).convert("L")), saved(drawn(203, 149), progressive=True, subsampling=0)]
    batch = DeviceDecoder(plan, CPU)(files)
    assert (batch.dtype, batch.shape) == (torch.uint8, (len(files), plan.spec.height, plan.spec.width, 3))
    for pixels, expected in zip(batch, on_cpu(plan, files), strict=True):
        assert max_difference(pixels, expected) <= 2


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.resize}-{plan.resample}")
def test_noise_is_resized_within_two_levels(plan):
    """Noise is the most difficult image, because bicubic resizing overshoots at every edge."""
    for width, height in SIZES:
        noise = np.random.default_rng((width, height)).integers(0, 256, (height, width, 3), dtype=np.uint8)
        planes = torch.from_numpy(noise).permute(2, 0, 1).contiguous()
        assert max_difference(plan.apply(planes.permute(1, 2, 0), resize_on_gpu), plan(noise)) <= 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(drawn(90, 60)), True),
        (saved(drawn(90, 60).convert("L")), True),
        (saved(drawn(90, 60), progressive=True), True),
        (saved(drawn(90, 60), subsampling=1), True),
        (saved(drawn(90, 60), **turned(1)), True),
        (saved(drawn(90, 60), **turned(6)), False),
        (saved(drawn(90, 60).convert("CMYK")), False),
        (saved(drawn(90, 60), keep_rgb=True), False),
        (saved(drawn(90, 60), subsampling="4:1:1"), True),  # Pillow's other name of 4:2:0
        (saved(drawn(90, 60)) + b"film", False),
        (saved(Image.new("L", (4097, 4096))), False),
    ],
)
def test_upright_jpegs_are_gpu_decodable(data, expected):
    assert is_gpu_decodable(open_image(data, LIMIT)) is expected


def test_other_formats_are_not_gpu_decodable():
    for kind in ("PNG", "MPO"):
        buffer = io.BytesIO()
        drawn(90, 60).save(buffer, kind, save_all=True, append_images=[drawn(90, 60)] * (kind == "MPO"))
        assert not is_gpu_decodable(open_image(buffer.getvalue(), LIMIT))


@pytest.mark.parametrize("part", [0.6, 0.8, 0.995])
def test_truncated_jpeg_is_rejected_by_the_cpu(part):
    data = saved(drawn(203, 149))
    cut = data[: int(len(data) * part)]
    assert not is_gpu_decodable(open_image(cut, LIMIT))
    with pytest.raises(InvalidImage):
        decode_image(cut, LIMIT)


def test_damaged_file_fails_its_batch():
    good = saved(drawn(203, 149))
    with pytest.raises(RuntimeError):
        DeviceDecoder(PLAN, CPU)([good, good[:-100]])


@pytest.fixture
def gpu(monkeypatch):
    """Replace the GPU with a CPU. Return a function that sets the duration of a run on the GPU and on the CPU."""

    def takes(there: float, here: float) -> None:
        seconds = iter((there, here))
        monkeypatch.setattr(gpu_decode, "measure_seconds", lambda work: (work(), next(seconds))[1])

    monkeypatch.setattr(gpu_decode, "DeviceDecoder", lambda plan, device: DeviceDecoder(plan, CPU))
    return takes


def choose(
    preference: str,
    device=GPU,
    plan: PreprocessingPlan | None = PLAN,
    decode=lambda files: on_cpu(PLAN, files),
):
    return choose_decoder(preference, plan, device, decode)


def test_faster_decoder_is_chosen(gpu):
    gpu(there=0.01, here=0.02)
    decoder, reason = choose("auto")
    assert decoder is not None
    assert reason == "800 images/s on the GPU, 400 on the CPU"


def test_gpu_that_is_hardly_faster_is_not_chosen(gpu):
    gpu(there=0.01, here=0.0124)
    decoder, reason = choose("auto")
    assert decoder is None
    assert reason == "800 images/s on the GPU, 645 on the CPU"


def test_configured_decoder_is_not_measured(gpu, caplog):
    assert choose("cpu") == (None, "requested in model-config.yaml")
    decoder, reason = choose("gpu")
    assert decoder is not None
    assert reason == "requested in model-config.yaml"
    assert caplog.text == ""


@pytest.mark.parametrize("preference", ["auto", "gpu"])
def test_worker_without_gpu_decodes_on_cpu(preference, caplog):
    assert choose(preference, CPU) == (None, "this worker has no GPU")
    assert ("JPEGs are decoded on the CPU, not on the GPU as requested" in caplog.text) == (
        preference == "gpu"
    )


def test_model_without_plan_decodes_on_cpu():
    assert choose("auto", plan=None) == (
        None,
        "the GPU cannot do the preprocessing of the model's image processor",
    )


def test_failing_decoder_is_not_chosen(monkeypatch, caplog):
    def fails(self, files):
        raise RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support")

    monkeypatch.setattr(DeviceDecoder, "__call__", fails)
    decoder, reason = choose("gpu")
    assert decoder is None
    assert reason == "RuntimeError: decode_jpegs_cuda: torchvision not compiled with nvJPEG support"
    assert reason in caplog.text


def test_decoder_with_other_pixels_is_not_chosen(gpu):
    decoder, reason = choose("gpu", decode=lambda files: [pixels.flip(-1) for pixels in on_cpu(PLAN, files)])
    assert decoder is None
    assert "differ from the CPU's by" in reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_machine_without_driver_decodes_on_cpu():
    decoder, reason = choose("auto")
    assert decoder is None
    assert reason


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_nvjpeg_pixels_agree_with_the_cpu():
    files = sample_jpegs()
    there = DeviceDecoder(PLAN, GPU)(files).cpu()
    assert (there.float() - torch.stack(on_cpu(PLAN, files)).float()).abs().mean() < 2
