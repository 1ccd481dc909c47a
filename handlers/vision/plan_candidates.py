"""Derive the resizes and crops that an image processor may perform from its settings."""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from handlers.vision.resize import NEAREST, RESAMPLES, Fit, Library, Size

_RESIZES, _CROPS = ("Resize", "ResizeKeepRatio"), ("CenterCrop", "CenterCropOrPad")
_CONVERSIONS = ("ToTensor", "MaybeToTensor", "Normalize")
_UNSUPPORTED_SETTINGS = (
    "do_pad",
    "do_thumbnail",
    "do_align_long_axis",
    "do_color_quantize",
    "do_pan_and_scan",
    "size_divisor",
)
_SIZE_KEYS = frozenset({"height", "width", "shortest_edge"})


class PlanCandidate(NamedTuple):
    """The fields of a possible `PreprocessingPlan`. Plans may not support the interpolation in `resample`."""

    resize: int | Size | None
    resample: str
    crop: Size | None
    rounding: str
    fit: Fit = "default"
    library: Library = "torch"
    fill: tuple[int, int, int] = (0, 0, 0)


def enumerate_candidates(processor: Any) -> Iterator[PlanCandidate]:
    """Yield the plan candidates for an image processor of transformers, most likely first. There may be none.

    The caller must compare a candidate's results with those of the processor.
    """
    transforms = _timm_transforms(processor)
    if transforms is not None:
        yield from _transforms_candidates(transforms)
        return
    resample = _resample(processor)
    if resample is None:
        return
    library: Library = "pillow" if getattr(processor, "backend", None) == "pil" else "torch"
    if library == "pillow" and resample == NEAREST:
        return  # rounds other positions than torch
    for (resize, fit), crop, rounding in product(_resizes(processor), _crops(processor), ("down", "even")):
        yield PlanCandidate(resize, resample, crop, rounding, fit, library)


def explain_missing_plan(processor: Any) -> str:
    """Return the setting, or else the class, for which no plan has the results of an image processor."""
    name = type(processor).__name__
    transforms = _timm_transforms(processor)
    if transforms is not None:
        names = [type(transform).__name__ for transform in transforms]
        others = [step for step in names if step not in (*_RESIZES, *_CROPS, *_CONVERSIONS)]
        if others:
            return f"no fast preprocessing for timm's {', '.join(others)}"
        resample = next((_interpolation(step) for step in transforms if hasattr(step, "interpolation")), None)
    else:
        resample = _resample(processor)
    pillow_nearest = resample == NEAREST and (
        transforms is not None or getattr(processor, "backend", "") == "pil"
    )
    if resample is not None and (resample not in RESAMPLES or pillow_nearest):
        setting = "resample" if transforms is None else "interpolation"
        return f"no fast preprocessing for {setting!r}: {resample} in {name}"
    extra = [key for key, value in _size(processor).items() if value and key not in _SIZE_KEYS]
    if extra:
        return f"no fast preprocessing for 'size' with {', '.join(extra)} in {name}"
    settings = [key for key in _UNSUPPORTED_SETTINGS if getattr(processor, key, None)]
    if settings:
        return f"no fast preprocessing for {', '.join(map(repr, settings))} in {name}"
    return f"{name} is not a resize followed by a center crop"


def _timm_transforms(processor: Any) -> list[Any] | None:
    """Return the transforms of timm's image processor, which has them in place of settings; None for others."""
    transforms = getattr(processor, "val_transforms", None)
    return None if transforms is None else list(transforms.transforms)


def _transforms_candidates(transforms: list[Any]) -> Iterator[PlanCandidate]:
    """Yield the candidate for transforms of timm and torchvision that are a resize and maybe a center crop."""
    names = [type(transform).__name__ for transform in transforms]
    if not set(names) <= {*_RESIZES, *_CROPS, *_CONVERSIONS}:
        return
    by_name = dict(zip(names, transforms, strict=True))
    resize = next((by_name[name] for name in _RESIZES if name in by_name), None)
    crop = next((by_name[name] for name in _CROPS if name in by_name), None)
    if (
        resize is None or _interpolation(resize) == NEAREST
    ):  # Pillow's nearest rounds other positions than torch
        return
    size = tuple(resize.size) if isinstance(resize.size, list | tuple) else resize.size
    fits: dict[float, Fit] = {0.0: "cover", 1.0: "contain"}
    fill = getattr(crop, "fill", 0)
    yield PlanCandidate(
        size if not isinstance(size, tuple) or len(size) == 2 else size[0],
        _interpolation(resize),
        tuple(crop.size) if crop is not None else None,
        "even",
        fits.get(resize.longest, "cover") if hasattr(resize, "longest") else "default",
        "pillow",
        (fill, fill, fill) if isinstance(fill, int) else tuple(fill),
    )


def _interpolation(transform: Any) -> str:
    name = str(getattr(transform.interpolation, "value", transform.interpolation))
    return NEAREST if name == "nearest" else name


def _resample(processor: Any) -> str | None:
    from transformers.image_utils import pil_torch_interpolation_mapping as torch_names

    resample = torch_names.get(getattr(processor, "resample", None))
    return None if resample is None else str(resample.value)


def _resizes(processor: Any) -> Iterator[tuple[int | Size | None, Fit]]:
    """Yield the resizes that the processors of different model families perform for the same attributes."""
    if not getattr(processor, "do_resize", False):
        yield None, "default"
        return
    size = _size(processor)
    crop_pct = getattr(processor, "crop_pct", None)
    if edge := size.get("shortest_edge"):
        yield edge, "default"
        if crop_pct:
            yield int(edge / crop_pct), "default"  # ConvNext, PoolFormer
        yield (edge, edge), "default"  # ConvNext from 384 on
        yield int(256 / 224 * edge), "default"  # LeViT
    elif size.get("height") and size.get("width"):
        height, width = size["height"], size["width"]
        if edge := getattr(processor, "resize_short", None):
            yield edge, "rounded"  # PP-LCNet
        yield (height, width), "default"
        if crop_pct:  # PoolFormer
            yield int(height / crop_pct), "default"
            yield (int(height / crop_pct), int(width / crop_pct)), "default"


def _crops(processor: Any) -> Iterator[Size | None]:
    if getattr(processor, "do_center_crop", False):
        yield processor.crop_size["height"], processor.crop_size["width"]
    else:
        yield None
        if edge := _size(processor).get("shortest_edge"):
            yield edge, edge  # ConvNext


def _size(processor: Any) -> dict[str, int]:
    return dict(getattr(processor, "size", None) or {})
