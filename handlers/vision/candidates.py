"""What an image processor may mean by its settings: the resizes and crops that a plan is tried with."""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple


class Candidate(NamedTuple):
    """As in `Plan`; `resample` may be any interpolation, also one that no plan has."""

    resize: int | tuple[int, int] | None
    resample: str
    crop: tuple[int, int] | None
    rounding: str


def candidates(processor: Any) -> Iterator[Candidate]:
    """Of an image processor of transformers, likelier ones first; trying tells which it is. Maybe none."""
    transforms = getattr(processor, "val_transforms", None)
    if transforms is not None:  # timm's, which hold what they do rather than settings
        yield from _of_transforms(transforms.transforms)
        return
    from transformers.image_utils import pil_torch_interpolation_mapping as torch_names

    resample = torch_names.get(getattr(processor, "resample", None))
    if resample is not None:
        for resize, crop, rounding in product(_resizes(processor), _crops(processor), ("down", "even")):
            yield Candidate(resize, resample.value, crop, rounding)


def _of_transforms(transforms: Any) -> Iterator[Candidate]:
    """Of torchvision's transforms one after the other, when they are a resize, a crop, and what reckons in levels."""
    known = {type(transform).__name__: transform for transform in transforms}
    if "Resize" not in known:
        return
    size = known["Resize"].size
    resize = tuple(size) if isinstance(size, list | tuple) else size
    crop = known.get("CenterCrop")
    yield Candidate(
        resize if not isinstance(resize, tuple) or len(resize) == 2 else resize[0],
        known["Resize"].interpolation.value,
        tuple(crop.size) if crop is not None else None,
        "even",
    )


def _resizes(processor: Any) -> Iterator[int | tuple[int, int] | None]:
    """What the processors of transformers' families make of the same attributes."""
    if not getattr(processor, "do_resize", False):
        yield None
        return
    size = _size(processor)
    crop_pct = getattr(processor, "crop_pct", None)
    if edge := size.get("shortest_edge"):
        yield edge
        if crop_pct:
            yield int(edge / crop_pct)  # ConvNext, PoolFormer
            yield edge, edge  # ConvNext from 384 on
        yield int(256 / 224 * edge)  # LeViT
    elif size.get("height") and size.get("width"):
        yield size["height"], size["width"]
        if crop_pct:
            yield int(size["height"] / crop_pct)  # PoolFormer


def _crops(processor: Any) -> Iterator[tuple[int, int] | None]:
    if getattr(processor, "do_center_crop", False):
        yield processor.crop_size["height"], processor.crop_size["width"]
    else:
        yield None
        if edge := _size(processor).get("shortest_edge"):
            yield edge, edge  # ConvNext


def _size(processor: Any) -> dict[str, int]:
    return dict(getattr(processor, "size", None) or {})
