"""Tests of deriving preprocessing plans, against all image processors of transformers' and timm's classifiers."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import (
    BitImageProcessor,
    ConvNextImageProcessor,
    TimmWrapperImageProcessor,
    ViTImageProcessor,
)
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from handlers.core.errors import ConfigurationError
from handlers.engines.image.types import Normalization
from handlers.vision.decode import decode_image
from handlers.vision.plan_candidates import explain_missing_plan
from handlers.vision.plan_derivation import (
    MAX_DIFFERENCE,
    MAX_MEAN_DIFFERENCE,
    derive_plan,
    load_processor,
    run_processor,
)
from handlers.vision.preprocessing_plan import PreprocessingPlan
from handlers.vision.resize import MAX_ASPECT

IMAGENET = Normalization(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SHORT, EXACT, CROP = ({"shortest_edge": 40}, {"height": 40, "width": 30}, {"height": 36, "width": 33})
CROPPED = {"size": SHORT, "crop_size": CROP}
CROPPING = ("Bit", "CLIP", "DeiT", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "PoolFormer")
EXACT_SIZE = ("Beit", "EfficientNet", "Gemma3", "Pvt", "Segformer", "Siglip", "ViT")
# Families and settings, with the start of the reason if there is no plan.
WITHOUT_PLAN = [
    ("Donut", {"size": EXACT}, "no fast preprocessing for 'do_pad', 'do_thumbnail' in DonutImageProcessor"),
    (
        "Perceiver",
        {"size": CROP, "crop_size": EXACT},
        "PerceiverImageProcessor is not a resize followed by a",
    ),
    ("Siglip2", {}, "Siglip2ImageProcessor is not a resize followed by a center crop"),
    ("TextNet", CROPPED | {"do_center_crop": True}, "no fast preprocessing for 'size_divisor' in TextNet"),
    (
        "PPLCNet",
        {"resize_short": 40, "crop_size": CROP, "size_divisor": 7},
        "no fast preprocessing for 'size_div",
    ),
    ("ViT", {"size": EXACT, "resample": 4}, "no fast preprocessing for 'resample': box in ViTImageProcessor"),
    (
        "Bit",
        {"do_center_crop": False, "size": SHORT},
        "BitImageProcessor is not a resize followed by a center",
    ),
    (
        "Bit",
        {"size": {"shortest_edge": 40, "longest_edge": 90}},
        "no fast preprocessing for 'size' with longest_",
    ),
]
WITH_PLAN = [
    *((family, CROPPED) for family in CROPPING),
    *((family, CROPPED | {"resample": 0}) for family in CROPPING[:2]),
    *((family, {"size": EXACT}) for family in EXACT_SIZE),
    *((family, {"size": EXACT, "resample": 0}) for family in EXACT_SIZE[:2]),
    ("Bit", {"size": SHORT, "crop_size": {"height": 60, "width": 21}}),  # smaller than the crop
    ("Bit", {"do_resize": False, "crop_size": CROP}),
    ("Bit", CROPPED | {"resample": 1}),
    ("BitPil", CROPPED),
    ("ConvNext", {"size": SHORT, "crop_pct": 0.875}),
    ("ConvNext", {"size": {"shortest_edge": 41}, "crop_pct": 0.95, "resample": 2}),
    ("ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": None}),
    ("DeiT", {"size": EXACT, "crop_size": CROP}),
    ("EfficientNet", {"size": EXACT, "rescale_offset": True, "include_top": False}),
    ("EfficientNet", {"size": EXACT, "rescale_offset": True, "rescale_factor": 1 / 127.5}),
    ("EfficientNet", {"size": EXACT, "do_center_crop": True, "crop_size": CROP, "resample": 0}),
    ("MobileViT", CROPPED | {"do_flip_channel_order": False}),
    ("PoolFormer", CROPPED | {"crop_pct": None}),
    ("PoolFormer", {"size": EXACT, "crop_size": CROP}),
    ("PPLCNet", {"resize_short": 40, "crop_size": CROP}),
    ("ViT", {"size": EXACT, "do_normalize": False}),
    ("ViT", {"size": EXACT, "do_rescale": False, "do_normalize": False}),
    ("ViTPil", {"size": EXACT}),
]
TIMM = {
    "input_size": (3, 32, 32),
    "interpolation": "bicubic",
    "mean": (0.4, 0.5, 0.6),
    "std": (0.2, 0.3, 0.25),
}
TIMM_CONFIGS = [
    *(
        {"crop_mode": mode, "crop_pct": pct}
        for mode in ("center", "squash", "border")
        for pct in (None, 0.9, 1.0)
    ),
    *({"crop_mode": mode, "input_size": (3, 32, 48)} for mode in ("center", "squash", "border")),
    *({"interpolation": name} for name in ("bilinear", "lanczos")),
]
SIZES = [
    *((480, 640), (333, 500), (131, 97), (36, 33), (31, 33), (1, 1), (2, 3), (3, 20), (768, 1001)),
    *((13, 520), (520, 13), (17, 680), (641, 16), (1, 41), (520, 70)),
]


def family_processor(family: str, settings: dict[str, Any]) -> Any:
    family, pil = family.removesuffix("Pil"), "Pil" * family.endswith("Pil")
    return getattr(transformers, f"{family}ImageProcessor{pil}")(**settings)


def timm_processor(settings: dict[str, Any]) -> Any:
    return TimmWrapperImageProcessor(TIMM | settings)


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng((height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def levels(pixels: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    """Return the processor's pixels [3, height, width] without normalization, as [height, width, 3]."""
    scale, mean, std = normalization
    return (pixels.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)) / scale


def check_pixels(plan: PreprocessingPlan, processor: Any, image: np.ndarray, exact: bool) -> None:
    before = image.copy()
    pixels, expected = plan(image), levels(run_processor(processor, image), plan.normalization)
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    assert pixels.shape == expected.shape == (plan.spec.height, plan.spec.width, 3)
    difference = (pixels - expected).abs()
    assert difference.max() < (0.01 if exact else MAX_DIFFERENCE), image.shape
    assert difference.mean() < MAX_MEAN_DIFFERENCE, image.shape
    assert (image == before).all()


def test_table_has_all_image_processors_of_classifiers():
    mapped = [
        IMAGE_PROCESSOR_MAPPING_NAMES.get(name) or {} for name in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    ]
    classes = {name for entry in mapped for name in entry.values() if not name.endswith("Pil")}
    families = {family for family, *_ in (*WITH_PLAN, *WITHOUT_PLAN)} | {"ImageGPT", "TimmWrapper"}
    assert {name.removesuffix("ImageProcessor") for name in classes} == {
        family for family in families if not family.endswith("Pil")
    }


@pytest.mark.parametrize(
    ("family", "settings"), WITH_PLAN, ids=lambda value: value if type(value) is str else ""
)
def test_plan_gives_the_pixels_of_the_processor(family, settings):
    processor = family_processor(family, settings)
    plan = derive_plan(processor)
    assert plan is not None
    for height, width in SIZES:
        # The same code as in the library, except in Pillow, and for the middle of long images.
        exact = plan.library == "torch" and (
            max(height, width) <= MAX_ASPECT * min(height, width) or plan.resample == "nearest-exact"
        )
        check_pixels(plan, processor, random_image(height, width), exact)


@pytest.mark.parametrize("settings", TIMM_CONFIGS, ids=str)
def test_plan_gives_the_pixels_of_timm(settings):
    processor = timm_processor(settings)
    plan = derive_plan(processor)
    assert plan is not None
    for size in SIZES:
        check_pixels(plan, processor, random_image(*size), exact=False)


@pytest.mark.parametrize(
    ("family", "settings", "reason"), WITHOUT_PLAN, ids=lambda value: value if type(value) is str else ""
)
def test_missing_plan_is_explained(family, settings, reason):
    processor = family_processor(family, settings)
    assert derive_plan(processor) is None
    assert explain_missing_plan(processor).startswith(reason)


@pytest.mark.parametrize("name", ["nearest", "box", "hamming"])
def test_interpolation_of_timm_without_plan_is_explained(name):
    processor = timm_processor({"interpolation": name})
    assert derive_plan(processor) is None
    assert explain_missing_plan(processor).startswith(f"no fast preprocessing for 'interpolation': {name}")


def test_transform_of_timm_without_plan_is_explained():
    from timm.data.transforms import TrimBorder

    processor = timm_processor({})
    processor.val_transforms.transforms.insert(0, TrimBorder(4))
    assert derive_plan(processor) is None
    assert explain_missing_plan(processor) == "no fast preprocessing for timm's TrimBorder"


def test_processor_without_pixels_is_rejected():
    processor = transformers.ImageGPTImageProcessor(clusters=[[0, 0, 0], [1, 1, 1]], size=EXACT)
    with pytest.raises(ConfigurationError, match="ImageGPTImageProcessor returns input_ids in place of"):
        derive_plan(processor)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "I;16", "1"])
@pytest.mark.parametrize(
    "processor",
    [
        BitImageProcessor(**CROPPED),
        family_processor("MobileViT", CROPPED),
        family_processor("EfficientNet", {"size": EXACT, "resample": 0}),
        timm_processor({"crop_mode": "border"}),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_files_of_all_modes_have_the_pixels_of_the_processor(processor, mode):
    plan = derive_plan(processor)
    for size in ((131, 97), (3, 90), (1, 1)):
        rng = np.random.default_rng(size)
        if mode == "I;16":
            image = Image.fromarray(rng.integers(0, 65536, size, dtype=np.uint16))
        else:
            image = Image.fromarray(rng.integers(0, 256, (*size, 4), dtype=np.uint8), "RGBA").convert(mode)
        file = io.BytesIO()
        image.save(file, "PNG")
        check_pixels(plan, processor, np.array(decode_image(file.getvalue(), 1 << 20)), exact=False)


def test_custom_processor_has_no_plan():
    class Brighter(ViTImageProcessor):
        def resize(self, image, *arguments, **options):
            return super().resize(image, *arguments, **options).clamp(16)

    assert derive_plan(ViTImageProcessor(size=EXACT)) is not None
    assert derive_plan(Brighter(size=EXACT)) is None


def test_normalization_of_plan_equals_that_of_the_model(tmp_path: Path):
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
    assert derive_plan(load_processor(tmp_path)) == PreprocessingPlan(256, "bicubic", (224, 224), IMAGENET)


def test_processor_config_json_is_read(tmp_path):
    settings = ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875).to_dict()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert isinstance(load_processor(tmp_path), ConvNextImageProcessor)


def test_model_without_preprocessor_is_rejected(tmp_path):
    with pytest.raises(ConfigurationError, match="preprocessor_config"):
        load_processor(tmp_path)
