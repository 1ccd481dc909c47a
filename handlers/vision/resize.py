"""Resize and crop images with the pixels of torch's or Pillow's resize."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image

MAX_ASPECT = 8
"""Ratio of the edges above which only the part of the resized image that the crop keeps is computed. The whole image
would be too large if the resize keeps the aspect ratio."""
NEAREST = "nearest-exact"
"""torch's name of the resize that copies the pixel nearest to each center, Pillow's NEAREST."""
RESAMPLES = ("bilinear", "bicubic", "lanczos", NEAREST)
_PILLOW_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MAX_RADIUS = 3
"""Radius in pixels of the widest filter, Lanczos."""
Size = tuple[int, int]
"""(height, width)."""
Levels = TypeVar("Levels", np.ndarray, torch.Tensor)
ResizeFunction = Callable[[torch.Tensor, Size, str], torch.Tensor]
"""A function that resizes uint8 [height, width, 3] to uint8 [*size, 3], with an antialiased filter of RESAMPLES. The
rows are resized first, that is the width; each pass rounds to uint8."""
Fit = Literal["default", "rounded", "cover", "contain"]
Library = Literal["torch", "pillow"]


@dataclass(frozen=True)
class ResizeOptions:
    """How an image is resized and cropped.

    Attributes:
        resample: One of RESAMPLES.
        library: The library whose order of passes is reproduced.
        rounding: Rounding of half pixels in the crop's offset, "down" or to "even" numbers.
        fill: Padding of an image that is smaller than the crop, RGB.
        resize: Resizes on the image's device.
    """

    resample: str
    library: Library
    rounding: str
    fill: tuple[int, int, int]
    resize: ResizeFunction


def output_size(size: Size, resize: int | Size | None, fit: Fit) -> Size:
    """Return the size of an image after a resize.

    Args:
        size: The image's size.
        resize: Pixels of the shorter edge, or a size, or None for no resize.
        fit: "default" truncates the longer edge (torchvision, and `get_resize_output_image_size` of transformers) and
            takes a size as it is. "rounded" rounds the longer edge (`PPLCNetImageProcessor`). "cover" and "contain"
            keep the aspect ratio so that the result covers the size or fits into it (timm's `ResizeKeepRatio` with
            `longest` 0 or 1); no edge becomes shorter than one pixel.
    """
    height, width = size
    match resize:
        case None:
            return size
        case int(edge) if fit == "rounded":
            scale = edge / min(size)
            return round(height * scale), round(width * scale)
        case int(edge):
            return int(edge * height / min(size)), int(edge * width / min(size))
        case (rows, columns) if fit in ("cover", "contain"):
            ratio = (min if fit == "cover" else max)(height / rows, width / columns)
            return max(1, round(height / ratio)), max(1, round(width / ratio))
        case exact:
            return exact


def resize_and_crop(image: torch.Tensor, target: Size, crop: Size, options: ResizeOptions) -> torch.Tensor:
    """Resize an image to `target`, and return its middle as contiguous uint8 [*crop, 3], padded to that size.

    Only the pixels that `crop` keeps are computed if the image is longer than MAX_ASPECT; these may differ by one
    level after each axis, because Pillow resizes them.
    """
    size = image.shape[0], image.shape[1]
    if target == size:
        pass
    elif options.resample == NEAREST:
        for axis in (0, 1):
            begin, _, count = _overlap(target[axis], crop[axis], options.rounding)
            index = _nearest(size[axis], target[axis], begin, count)
            image = image.index_select(axis, torch.from_numpy(index).to(image.device))
    elif max(target) > MAX_ASPECT * min(target) and target[_long_axis(target)] > crop[_long_axis(target)]:
        image = _resize_middle(image, target, crop, options)
    else:
        if _height_first(size, target, options.library):
            image = options.resize(image, (target[0], size[1]), options.resample)
        image = options.resize(image, target, options.resample)
    return _center_crop(image, crop, options.rounding, options.fill)


def limit_aspect_ratio(image: Levels, max_aspect: int) -> Levels:
    """Return the middle of an image [height, width, 3] whose edges have a ratio of about `max_aspect` at most."""
    longest = max_aspect * min(image.shape[:2])
    # The same number of pixels on both sides, so that the center stays in its place.
    height, width = (
        size if size <= longest + 1 else longest + (size - longest) % 2 for size in image.shape[:2]
    )
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def resize_on_cpu(image: torch.Tensor, target: Size, resample: str) -> torch.Tensor:
    """Resize on a CPU, with the same code as torchvision's resize."""
    image = image.contiguous()
    height, width = image.shape[:2]
    # One image in channels-last order. Without an explicit stride of the batch, torch assumes another order and
    # repacks the result, on all threads (torch issue 68430).
    pixels = image.as_strided((1, 3, height, width), (image.numel(), 1, 3 * width, 3))
    resized = torch.nn.functional.interpolate(
        pixels, target, mode=resample, align_corners=False, antialias=True
    )
    return resized[0].permute(1, 2, 0)


def _height_first(size: Size, target: Size, library: Library) -> bool:
    """Return True if the library resizes the height before the width: Pillow 13 for some images, torch never.

    Pillow's condition is in `ImagingResampleInner` (src/libImaging/Resample.c).
    """
    height_loss, width_loss = size[0] - target[0], size[1] - target[1]
    return library == "pillow" and height_loss > 0 and height_loss > 2 * width_loss


def _nearest(length: int, target: int, begin: int, count: int) -> np.ndarray:
    """Return the indices of the pixels that torch's nearest resize reads for `count` results from `begin` on.

    In float32 as in torch (`nearest_neighbor_exact_compute_source_index`, aten/src/ATen/native/UpSample.h).
    """
    scale = np.float32(length) / np.float32(target)
    centers = (np.arange(begin, begin + count).astype(np.float32) + np.float32(0.5)) * scale
    return np.minimum(centers.astype(np.int64), length - 1)


def _long_axis(size: Size) -> int:
    return int(size[1] > size[0])


def _resize_middle(image: torch.Tensor, target: Size, crop: Size, options: ResizeOptions) -> torch.Tensor:
    """Resize an image to `target`, and return only the middle `crop` of the longer edge of `target`."""
    size = image.shape[0], image.shape[1]
    axis = _long_axis(target)
    begin, _, count = _overlap(target[axis], crop[axis], options.rounding)
    scale = size[axis] / target[axis]
    margin = math.ceil(_MAX_RADIUS * max(1.0, scale)) + 1
    first = max(0, math.floor(begin * scale) - margin)
    last = min(size[axis], math.ceil((begin + count) * scale) + margin)
    image = image.narrow(axis, first, last - first)
    box = begin * scale - first, min((begin + count) * scale - first, last - first)

    def resize_long(image: torch.Tensor) -> torch.Tensor:
        return _resize_box(image, axis, box, count, options.resample)

    def resize_short(image: torch.Tensor) -> torch.Tensor:
        return options.resize(image, _replace(image.shape, 1 - axis, target[1 - axis]), options.resample)

    if _height_first(size, target, options.library) == (axis == 0):
        return resize_short(resize_long(image))
    return resize_long(resize_short(image))


def _resize_box(
    image: torch.Tensor, axis: int, box: tuple[float, float], count: int, resample: str
) -> torch.Tensor:
    """Resize the part of an image between two positions on an axis to `count` pixels with Pillow."""
    height, width, _ = image.shape
    corners = (0, box[0], width, box[1]) if axis == 0 else (box[0], 0, box[1], height)
    rows, columns = _replace(image.shape, axis, count)
    resized = Image.fromarray(image.cpu().numpy()).resize((columns, rows), _PILLOW_FILTERS[resample], corners)
    return torch.from_numpy(np.array(resized)).to(image.device)


def _replace(shape: torch.Size, axis: int, length: int) -> Size:
    return (length, shape[1]) if axis == 0 else (shape[0], length)


def _center_crop(image: torch.Tensor, size: Size, rounding: str, fill: tuple[int, int, int]) -> torch.Tensor:
    """Return a contiguous copy of the image's middle, padded with `fill` if the image is smaller."""
    cropped = image.new_zeros((*size, 3))
    (top, to_top, rows), (left, to_left, columns) = (
        _overlap(length, target, rounding) for length, target in zip(image.shape, size, strict=False)
    )
    if (rows, columns) != size and any(fill):
        cropped[:] = image.new_tensor(fill)
    cropped[to_top : to_top + rows, to_left : to_left + columns] = image[
        top : top + rows, left : left + columns
    ]
    return cropped


def _overlap(length: int, target: int, rounding: str) -> tuple[int, int, int]:
    """Return the offset in the image, the offset in the crop, and the length of the part that the crop copies."""
    excess = max(length - target, 0)
    begin = excess // 2 if rounding == "down" else round(excess / 2)
    return begin, max(target - length, 0) // 2, min(length, target)
