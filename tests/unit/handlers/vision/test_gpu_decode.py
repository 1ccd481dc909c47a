"""JPEGs decoded on a device: the pixels of the CPU, and taken only where that works and is faster.

A CPU stands in for the GPU; nvJPEG itself runs where there is one.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.core.errors import InvalidImage
from handlers.vision import gpu_decode
from handlers.vision.decode import decode_image, open_image
from handlers.vision.gpu_decode import DeviceDecoder, choose_decoder, resized, samples, suitable
from handlers.vision.plan import Plan
from handlers.vision.types import Normalization
from tests.unit.handlers.vision.test_jpeg import drawn, saved, turned

LIMIT = 50_000_000
CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
HALF = Normalization(1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLAN = Plan(73, "bicubic", (64, 64), HALF)
PLANS = [
    PLAN,
    Plan(64, "bilinear", (90, 50), HALF),  # black above and below
    Plan((60, 80), "lanczos", None, HALF),
    Plan(None, "bilinear", (64, 64), HALF),
]
SIZES = [(640, 480), (479, 641), (73, 73), (33, 20), (1, 1), (7, 301), (900, 40)]


def apart(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


def on_cpu(plan: Plan, files) -> list[torch.Tensor]:
    """Every pixel decoded, as the device does, none left out by the JPEG decoder."""
    return [plan(decode_image(data, LIMIT)) for data in files]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.resize}-{plan.resample}")
def test_a_batch_has_the_pixels_of_the_plan(plan):
    files = [saved(drawn(*size)) for size in SIZES]
    files += [saved(drawn(203, 149).convert("L")), saved(drawn(203, 149), progressive=True, subsampling=0)]
    batch = DeviceDecoder(plan, CPU)(files)
    assert (batch.dtype, batch.shape) == (torch.uint8, (len(files), plan.spec.height, plan.spec.width, 3))
    for pixels, expected in zip(batch, on_cpu(plan, files), strict=True):
        assert apart(pixels, expected) <= 2


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.resize}-{plan.resample}")
def test_noise_is_resized_within_two_levels(plan):
    """The hardest for a resize: bicubic overshoots at every edge."""
    for width, height in SIZES:
        noise = np.random.default_rng((width, height)).integers(0, 256, (height, width, 3), dtype=np.uint8)
        planes = torch.from_numpy(noise).permute(2, 0, 1).contiguous()
        assert apart(plan.apply(planes.permute(1, 2, 0), resized), plan(noise)) <= 2


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
def test_plain_upright_jpegs_are_for_the_gpu(data, expected):
    assert suitable(open_image(data, LIMIT)) is expected


def test_other_formats_are_not():
    for kind in ("PNG", "MPO"):
        buffer = io.BytesIO()
        drawn(90, 60).save(buffer, kind, save_all=True, append_images=[drawn(90, 60)] * (kind == "MPO"))
        assert not suitable(open_image(buffer.getvalue(), LIMIT))


@pytest.mark.parametrize("part", [0.6, 0.8, 0.995])
def test_what_is_cut_off_is_left_to_the_cpu_which_refuses_it(part):
    data = saved(drawn(203, 149))
    cut = data[: int(len(data) * part)]
    assert not suitable(open_image(cut, LIMIT))
    with pytest.raises(InvalidImage):
        decode_image(cut, LIMIT)


def test_one_that_is_refused_fails_the_list():
    good = saved(drawn(203, 149))
    with pytest.raises(RuntimeError):
        DeviceDecoder(PLAN, CPU)([good, good[:-100]])


@pytest.fixture
def gpu(monkeypatch):
    """A CPU behind the name of a GPU; sets how many seconds a run takes there, and on the CPU."""

    def takes(there: float, here: float) -> None:
        seconds = iter((there, here))
        monkeypatch.setattr(gpu_decode, "seconds_of", lambda work: (work(), next(seconds))[1])

    monkeypatch.setattr(gpu_decode, "DeviceDecoder", lambda plan, device: DeviceDecoder(plan, CPU))
    return takes


def choose(wanted: str, device=GPU, plan: Plan | None = PLAN, decode=lambda files: on_cpu(PLAN, files)):
    return choose_decoder(wanted, plan, device, decode)


def test_the_faster_one_decodes(gpu):
    gpu(there=0.01, here=0.02)
    decoder, reason = choose("auto")
    assert decoder is not None
    assert reason == "800 images/s on the GPU, 400 on the CPU"


def test_a_gpu_has_to_be_clearly_faster(gpu):
    gpu(there=0.01, here=0.0124)
    decoder, reason = choose("auto")
    assert decoder is None
    assert reason == "800 images/s on the GPU, 645 on the CPU"


def test_what_is_asked_for_is_not_measured(gpu, caplog):
    assert choose("cpu") == (None, "asked for")
    decoder, reason = choose("gpu")
    assert decoder is not None
    assert reason == "asked for"
    assert caplog.text == ""


@pytest.mark.parametrize("wanted", ["auto", "gpu"])
def test_a_worker_without_a_gpu_decodes_on_its_cpu(wanted, caplog):
    assert choose(wanted, CPU) == (None, "this worker has no GPU")
    assert ("the CPU decodes JPEGs, not the GPU as asked for" in caplog.text) == (wanted == "gpu")


def test_a_model_without_a_plan_decodes_on_the_cpu():
    assert choose("auto", plan=None) == (None, "the model's image processor does what the GPU does not")


def test_a_decoder_that_fails_is_not_taken(monkeypatch, caplog):
    def fails(self, files):
        raise RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support")

    monkeypatch.setattr(DeviceDecoder, "__call__", fails)
    decoder, reason = choose("gpu")
    assert decoder is None
    assert reason == "RuntimeError: decode_jpegs_cuda: torchvision not compiled with nvJPEG support"
    assert reason in caplog.text


def test_a_decoder_whose_pixels_are_others_is_not_taken(gpu):
    decoder, reason = choose("gpu", decode=lambda files: [pixels.flip(-1) for pixels in on_cpu(PLAN, files)])
    assert decoder is None
    assert "levels from the CPU's" in reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_machine_without_the_driver_decodes_on_its_cpu():
    decoder, reason = choose("auto")
    assert decoder is None
    assert reason


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_nvjpeg_has_the_pixels_of_the_cpu():
    files = samples()
    there = DeviceDecoder(PLAN, GPU)(files).cpu()
    assert (there.float() - torch.stack(on_cpu(PLAN, files)).float()).abs().mean() < 2
