"""JPEGs to the network's input on the worker's GPU, where that is faster than on its cores."""

import io
import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from handlers.core.timing import MIN_SPEEDUP, seconds_of
from handlers.vision.decode import Opened, orientation
from handlers.vision.plan import Plan

MAX_PIXELS = 1 << 24
"""Of an image for the GPU, where a batch lies in full size before it is resized: 48 MiB each, at 16 megapixels."""
# Component, and its horizontal and vertical sampling: gray, 4:4:4, 4:2:2 and 4:2:0 of YCbCr (ITU T.81, B.2.2; JFIF).
_CHROMA = ((2, 1, 1), (3, 1, 1))
_LAYOUTS = (((1, 1, 1),), *(((1, *luma), *_CHROMA) for luma in ((1, 1), (2, 1), (2, 2))))
_YCBCR = 1  # Adobe's color transform
_END = b"\xff\xd9"
_SAMPLES = 8
_MOST_APART = 4.0
"""Mean difference in levels between an image decoded here and there; torchvision's own tests allow 2 of 255, on
images that are no harder, and a wrong color is tens."""
logger = logging.getLogger(__name__)

OnCpu = Callable[[Sequence[bytes]], Sequence[torch.Tensor]]
"""Files to uint8 [H, W, 3] each, as the CPU decodes those of a batch."""


class _Unfit(Exception):
    """The GPU cannot decode here; the message says why."""


class DeviceDecoder:
    """Decodes and preprocesses a batch on one device by torchvision: with nvJPEG on a GPU, libjpeg-turbo on a CPU.

    Raises what importing torchvision raises.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        from torchvision.io import ImageReadMode, decode_jpeg

        self._decode = decode_jpeg
        self._mode = ImageReadMode.RGB
        self._plan = plan
        self._device = device

    def __call__(self, files: Sequence[bytes]) -> torch.Tensor:
        """JPEGs that are `suitable` to uint8 [n, H, W, 3] of the plan, on the device.

        Raises what torchvision raises, for all of them if it refuses one.
        """
        sources = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
        images = self._decode(sources, self._mode, device=self._device)
        return torch.stack([self._plan.apply(image.permute(1, 2, 0), resized) for image in images])


def resized(image: torch.Tensor, target: tuple[int, int], resample: str) -> torch.Tensor:
    """Within two levels of the plan's own, as torch resizes uint8 on no GPU: in float32, and rounded
    and cut to 0..255 between rows and columns, as there.
    """
    levels = image.permute(2, 0, 1).unsqueeze(0).float()
    for size in ((image.shape[0], target[1]), target):
        levels = torch.nn.functional.interpolate(
            levels, size, mode=resample, align_corners=False, antialias=True
        )
        levels = levels.round().clamp(0, 255)
    return levels[0].permute(1, 2, 0).to(torch.uint8)


def suitable(opened: Opened) -> bool:
    """Whether the GPU gives this file the pixels that the CPU does: an upright JPEG, gray or YCbCr in a usual
    sampling, that ends in its end marker (EOI).

    A GPU's decoder may fill in what is cut off without a word. So a file without the marker is left to the CPU, which
    refuses it if its image is cut off. Damage in the middle is for the GPU's decoder to see.
    """
    image, data = opened
    return (
        isinstance(image, JpegImageFile)
        and image.format == "JPEG"  # not MPO, which is several
        and data.endswith(_END)
        and tuple(component[:3] for component in image.layer) in _LAYOUTS
        and image.info.get("adobe_transform", _YCBCR) == _YCBCR
        and image.width * image.height <= MAX_PIXELS
        and orientation(image) == 1
    )


def choose_decoder(
    wanted: str, plan: Plan | None, device: torch.device, on_cpu: OnCpu
) -> tuple[DeviceDecoder | None, str]:
    """A decoder for `device`, or None where the CPU shall decode, and the reason for it in a sentence.

    `wanted` is "auto", "cpu" or "gpu". Nothing that a GPU's decoder fails with is raised.
    """
    if wanted == "cpu":
        return None, "asked for"
    try:
        if device.type != "cuda":
            raise _Unfit("this worker has no GPU")
        if plan is None:
            raise _Unfit("the model's image processor does what the GPU does not")
        decoder, files = DeviceDecoder(plan, device), samples()
        _check(decoder(files).cpu(), torch.stack(list(on_cpu(files))))
        if wanted == "gpu":
            return decoder, "asked for"
        there = _SAMPLES / seconds_of(lambda: decoder(files).cpu())
        here = _SAMPLES / seconds_of(lambda: on_cpu(files))
    except Exception as error:
        reason = str(error) if isinstance(error, _Unfit) else f"{type(error).__name__}: {error}"[:200]
        if wanted == "gpu":
            logger.warning("the CPU decodes JPEGs, not the GPU as asked for: %s", reason)
        return None, reason
    reason = f"{there:.0f} images/s on the GPU, {here:.0f} on the CPU"
    return (decoder if there > MIN_SPEEDUP * here else None), reason


def samples() -> list[bytes]:
    """JPEGs of 640 x 480 with shapes and grain, about 100 kB each; the last one is gray."""
    rng = np.random.default_rng(0)
    files = []
    for index in range(_SAMPLES):
        shapes = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((640, 480), Image.Resampling.BICUBIC), np.float32)
        grainy = (smooth + rng.normal(0, 8, (480, 640, 1))).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(grainy)
        buffer = io.BytesIO()
        (image if index < _SAMPLES - 1 else image.convert("L")).save(buffer, "JPEG", quality=88)
        files.append(buffer.getvalue())
    return files


def _check(there: torch.Tensor, here: torch.Tensor) -> None:
    """Raises _Unfit."""
    apart = (there.float() - here.float()).abs().mean(dim=(1, 2, 3)).max().item()
    if not apart < _MOST_APART:
        raise _Unfit(f"the GPU's pixels are {apart:.1f} levels from the CPU's")
