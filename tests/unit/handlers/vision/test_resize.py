"""Tests of resizes and crops against transformers, timm and Pillow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.vision.gpu_decode import resize_on_gpu
from handlers.vision.resize import (
    MAX_ASPECT,
    ResizeOptions,
    limit_aspect_ratio,
    output_size,
    resize_and_crop,
    resize_on_cpu,
)

SIZES = [(480, 640), (641, 479), (1, 1), (3, 20), (17, 680), (680, 17), (1536, 2001), (333, 334)]
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng((height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_those_of_the_libraries(size):
    from timm.data.transforms import ResizeKeepRatio
    from transformers import PPLCNetImageProcessor
    from transformers.image_transforms import get_resize_output_image_size

    image = np.zeros((3, *size), np.uint8)
    shortest = get_resize_output_image_size(
        image, 60, default_to_square=False, input_data_format="channels_first"
    )
    assert output_size(size, 60, "default") == shortest
    rounded = PPLCNetImageProcessor().get_image_size(torch.from_numpy(image), 60, 1)
    assert output_size(size, 60, "rounded") == (rounded.height, rounded.width)
    pil_image = Image.new("L", size[::-1])
    for fit, longest in (("cover", 0.0), ("contain", 1.0)):
        assert list(output_size(size, (40, 70), fit)) == ResizeKeepRatio.get_params(
            pil_image, (40, 70), longest
        )
    assert output_size(size, (40, 70), "default") == (40, 70)
    assert output_size(size, None, "default") == size


def test_size_has_at_least_one_pixel():
    assert output_size((1, 1000), (40, 70), "contain") == (1, 70)
    assert output_size((1000, 1), (40, 70), "contain") == (40, 1)


def middle(image: np.ndarray, target: tuple[int, int], crop: tuple[int, int], **options: str) -> np.ndarray:
    settings = {"resample": "bicubic", "library": "torch", "rounding": "down"} | options
    tensor = torch.from_numpy(image)
    resize_options = ResizeOptions(**settings, fill=(1, 2, 3), resize=resize_on_cpu)
    return resize_and_crop(tensor, target, crop, resize_options).numpy()


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize(
    ("size", "target"),
    [
        *(((700, 60), (40, 30)), ((60, 700), (40, 30)), ((90, 30), (40, 37)), ((90, 400), (95, 30))),
        *(
            ((17, 680), (30, 1200)),
            ((680, 17), (1200, 30)),
            ((130, 2000), (33, 507)),
            ((2001, 130), (508, 33)),
        ),
    ],
)
def test_pixels_are_those_of_pillow(size, target, resample):
    image = random_image(*size)
    expected = np.asarray(Image.fromarray(image).resize(target[::-1], FILTERS[resample]))
    crop = min(target[0], 31), min(target[1], 31)
    top, left = (target[0] - crop[0]) // 2, (target[1] - crop[1]) // 2
    expected = expected[top : top + crop[0], left : left + crop[1]].astype(int)
    difference = np.abs(middle(image, target, crop, library="pillow", resample=resample) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.05


@pytest.mark.parametrize("size", [(20, 170), (170, 20), (3, 500), (500, 3), (160, 1501), (1501, 160)])
def test_middle_of_a_long_image_is_that_of_the_whole_image(size):
    image = random_image(*size)
    assert max(size) > MAX_ASPECT * min(size)
    target = output_size(size, 40, "default")
    full_image = resize_on_cpu(torch.from_numpy(image), target, "bicubic").numpy()
    top, left = (target[0] - min(target[0], 39)) // 2, (target[1] - min(target[1], 39)) // 2
    expected = full_image[top : top + 39, left : left + 39].astype(int)
    difference = np.abs(middle(image, target, (39, 39)) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.05


def test_small_image_is_padded_with_the_fill():
    padded = middle(random_image(3, 5), (3, 5), (6, 5))
    assert (padded[:1] == (1, 2, 3)).all()
    assert (padded[4:] == (1, 2, 3)).all()
    assert (padded[1:4] == random_image(3, 5)).all()


def test_nearest_pixels_of_a_long_image_are_copied():
    image = random_image(2, 5000)
    pixels = middle(image, (40, 100_000), (40, 40), resample="nearest-exact")
    assert (pixels[:20] == image[0, 2499:2501].repeat(20, 0)).all()
    assert (pixels[20:] == image[1, 2499:2501].repeat(20, 0)).all()


def test_device_resizes_in_the_order_of_pillow():
    image = torch.from_numpy(random_image(700, 60))
    options = ResizeOptions("bicubic", "pillow", "even", (0, 0, 0), resize_on_cpu)
    on_cpu = resize_and_crop(image, (40, 30), (40, 30), options)
    on_device = resize_and_crop(image, (40, 30), (40, 30), replace(options, resize=resize_on_gpu))
    assert (on_device.int() - on_cpu.int()).abs().max() <= 2


@pytest.mark.parametrize("length", range(60, 70))
def test_limited_image_has_the_same_center(length):
    image = random_image(3, length)
    limited = limit_aspect_ratio(image, 20)
    left = (length - limited.shape[1]) // 2
    assert limited.shape[1] in (60, 61)
    assert length - limited.shape[1] == 2 * left
    assert (limited == image[:, left : length - left]).all()
    assert (limit_aspect_ratio(image.swapaxes(0, 1), 20) == limited.swapaxes(0, 1)).all()
