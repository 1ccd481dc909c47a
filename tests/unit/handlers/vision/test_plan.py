"""Plans do what transformers' image processors do."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    BeitImageProcessor,
    BitImageProcessor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    DeiTImageProcessor,
    EfficientNetImageProcessor,
    LevitImageProcessor,
    MobileNetV2ImageProcessor,
    MobileViTImageProcessor,
    PerceiverImageProcessor,
    PoolFormerImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
)

from handlers.core.errors import ConfigurationError
from handlers.vision.plan import Plan, plan_of_processor, processed, processor_of
from handlers.vision.types import InputSpec, Normalization

IMAGENET = Normalization(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PROCESSORS = [
    ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875),
    ConvNextImageProcessor(size={"shortest_edge": 225}, crop_pct=0.95, resample=2),
    ConvNextImageProcessor(size={"shortest_edge": 384}),
    ViTImageProcessor(),
    ViTImageProcessor(size={"height": 96, "width": 160}, resample=1),
    ViTImageProcessor(do_normalize=False),
    ViTImageProcessor(do_rescale=False, do_normalize=False),
    BitImageProcessor(),
    BitImageProcessor(size={"shortest_edge": 200}, crop_size={"height": 224, "width": 101}),
    BitImageProcessor(do_resize=False),
    CLIPImageProcessor(),
    MobileNetV2ImageProcessor(),
    EfficientNetImageProcessor(),
    EfficientNetImageProcessor(rescale_offset=True, include_top=False),
    DeiTImageProcessor(),
    BeitImageProcessor(),
    LevitImageProcessor(),
    PoolFormerImageProcessor(),
    SiglipImageProcessor(),
]
SIZES = [(480, 640), (641, 479), (333, 500), (224, 224), (256, 341), (100, 90), (1, 1), (3, 20), (37, 290)]


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng((height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def levels(pixels: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    """What the processor's pixels [3, height, width] were before they were normalized, [height, width, 3]."""
    scale, mean, std = normalization
    return (pixels.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)) / scale


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda processor: type(processor).__name__)
def test_a_plan_gives_the_pixels_of_the_processor(processor):
    plan = plan_of_processor(processor)
    for size in SIZES:
        image = random_image(*size)
        before = image.copy()
        ours, expected = plan(image), levels(processed(processor, image), plan.normalization)
        assert ours.dtype == torch.uint8
        assert ours.is_contiguous()
        assert ours.shape == expected.shape == (plan.spec.height, plan.spec.width, 3)
        assert (ours - expected).abs().max() < 0.01  # not one level: the same code resizes
        assert (image == before).all()


@pytest.mark.parametrize(
    "processor",
    [
        MobileViTImageProcessor(),  # blue comes first
        PerceiverImageProcessor(),  # cuts before it resizes
        BitImageProcessor(do_center_crop=False),  # images of all sizes
        BitImageProcessor(size={"shortest_edge": 224, "longest_edge": 500}),
        ViTImageProcessor(resample=0),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_what_no_plan_can_say_has_none(processor):
    assert plan_of_processor(processor) is None


def test_a_processor_of_its_own_ways_has_no_plan():
    class Brighter(ViTImageProcessor):
        def resize(self, image, *arguments, **options):
            return super().resize(image, *arguments, **options).clamp(16)

    assert plan_of_processor(ViTImageProcessor()) is not None
    assert plan_of_processor(Brighter()) is None


def test_very_long_images_take_little_memory():
    plan = Plan(256, "bicubic", (224, 224), IMAGENET)
    middle = random_image(3, 24)
    for axis in (0, 1):
        image = np.zeros((3, 200_000, 3), np.uint8)  # at a height of 256 that would be 13 GB
        image[:, 99_988:100_012] = middle
        image, expected = (array.swapaxes(0, 1) if axis else array for array in (image, middle))
        assert torch.equal(plan(image), plan(expected))


def test_pixels_that_may_not_be_written_or_are_not_in_order():
    plan = Plan(40, "bilinear", (32, 32), IMAGENET)
    image = random_image(50, 60)
    expected = plan(image)
    image.flags.writeable = False
    assert torch.equal(plan(image), expected)
    assert torch.equal(plan(np.asfortranarray(image)), expected)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(256, "bicubic", (224, 200), IMAGENET),
        Plan((224, 200), "bilinear", None, IMAGENET),
        Plan(None, "lanczos", (224, 200), IMAGENET),
    ],
)
def test_a_plan_is_read_as_it_was_written(plan, tmp_path):
    plan.write(tmp_path / "preprocess.json")
    assert Plan.read(tmp_path / "preprocess.json") == plan
    assert plan.spec == InputSpec(224, 200, IMAGENET)


def test_the_numbers_of_a_plan_are_those_of_the_model(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 224},
                "crop_pct": 0.875,
                "image_mean": IMAGENET.mean,
                "image_std": IMAGENET.std,
            }
        )
    )
    assert plan_of_processor(processor_of(tmp_path)) == Plan(256, "bicubic", (224, 224), IMAGENET)


def test_a_processor_may_be_told_in_the_other_file(tmp_path):
    settings = ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875).to_dict()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert isinstance(processor_of(tmp_path), ConvNextImageProcessor)


def test_a_model_without_a_preprocessor_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="preprocessor_config"):
        processor_of(tmp_path)
