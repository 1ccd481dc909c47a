"""Decode and preprocess JPEGs on the worker's GPU if it is faster than the CPU."""

import io
import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from handlers.core.timing import MIN_SPEEDUP, measure_seconds
from handlers.vision.decode import OpenedImage, orientation
from handlers.vision.preprocessing_plan import PreprocessingPlan

MAX_PIXELS = 1 << 24
"""Maximum number of pixels of an image for the GPU, which stores a batch at full size: 48 MiB for each image."""
# Components with their horizontal and vertical sampling: gray, and YCbCr 4:4:4, 4:2:2 and 4:2:0 (ITU T.81, B.2.2).
_CHROMA = ((2, 1, 1), (3, 1, 1))
_LAYOUTS = (((1, 1, 1),), *(((1, *luma), *_CHROMA) for luma in ((1, 1), (2, 1), (2, 2))))
_YCBCR = 1  # Adobe's color transform
_END_MARKER = b"\xff\xd9"
_NUM_SAMPLES = 8
_MAX_MEAN_DIFFERENCE = 4.0
"""Maximum mean difference, in levels (0 to 255), between an image decoded on the GPU and on the CPU. torchvision's
tests allow 2 on similar images; wrong colors differ by tens."""
logger = logging.getLogger(__name__)

CpuDecoder = Callable[[Sequence[bytes]], Sequence[torch.Tensor]]
"""A function that decodes a batch of files on the CPU to uint8 [H, W, 3] each."""


class _GpuDecodeUnsupported(Exception):
    """Raised if this worker cannot decode JPEGs on the GPU. The message is the reason."""


class DeviceDecoder:
    """A decoder of JPEG batches with torchvision, which uses nvJPEG on a GPU and libjpeg-turbo on a CPU.

    The constructor raises an error if torchvision cannot be imported.
    """

    def __init__(self, plan: PreprocessingPlan, device: torch.device) -> None:
        from torchvision.io import ImageReadMode, decode_jpeg

        self._decode = decode_jpeg
        self._mode = ImageReadMode.RGB
        self._plan = plan
        self._device = device

    def __call__(self, files: Sequence[bytes]) -> torch.Tensor:
        """Return the preprocessed images, uint8 [n, H, W, 3], on the device.

        All files must satisfy `is_gpu_decodable`. Raises torchvision's errors if it rejects a file.
        """
        sources = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
        images = self._decode(sources, self._mode, device=self._device)
        return torch.stack([self._plan.apply(image.permute(1, 2, 0), resize_on_gpu) for image in images])


def resize_on_gpu(image: torch.Tensor, target: tuple[int, int], resample: str) -> torch.Tensor:
    """Resize an image on the GPU. Each pixel differs by at most two levels from the plan's resize on the CPU.

    torch cannot resize uint8 on a GPU. This function resizes in float32, and rounds and clamps to 0..255 after each
    axis, as the CPU does.
    """
    levels = image.permute(2, 0, 1).unsqueeze(0).float()
    for size in ((image.shape[0], target[1]), target):
        levels = torch.nn.functional.interpolate(
            levels, size, mode=resample, align_corners=False, antialias=True
        )
        levels = levels.round().clamp(0, 255)
    return levels[0].permute(1, 2, 0).to(torch.uint8)


def is_gpu_decodable(opened: OpenedImage) -> bool:
    """Return True if the GPU decodes this file to the same pixels as the CPU.

    This applies to upright JPEGs, gray or YCbCr in a common sampling, that end with the end marker (EOI). A GPU
    decoder may replace missing pixels without an error, so the CPU decodes files without the marker and rejects
    truncated images. The GPU decoder detects damage within a file.
    """
    image, data = opened
    return (
        isinstance(image, JpegImageFile)
        and image.format == "JPEG"  # MPO holds several images
        and data.endswith(_END_MARKER)
        and tuple(component[:3] for component in image.layer) in _LAYOUTS
        and image.info.get("adobe_transform", _YCBCR) == _YCBCR
        and image.width * image.height <= MAX_PIXELS
        and orientation(image) == 1
    )


def choose_decoder(
    preference: str, plan: PreprocessingPlan | None, device: torch.device, on_cpu: CpuDecoder
) -> tuple[DeviceDecoder | None, str]:
    """Choose the device that decodes JPEGs. If the GPU decoder fails, the CPU is chosen without an error.

    Args:
        preference: "auto", "cpu" or "gpu".
        plan: The model's preprocessing plan; None if the model needs its image processor.
        device: The worker's device.
        on_cpu: The decoder on the CPU.

    Returns:
        The decoder on `device`, or None for the CPU; and the reason for the choice.
    """
    if preference == "cpu":
        return None, "requested in model-config.yaml"
    try:
        if device.type != "cuda":
            raise _GpuDecodeUnsupported("this worker has no GPU")
        if plan is None:
            raise _GpuDecodeUnsupported("the GPU cannot do the preprocessing of the model's image processor")
        decoder, files = DeviceDecoder(plan, device), sample_jpegs()
        _check_agreement(decoder(files).cpu(), torch.stack(list(on_cpu(files))))
        if preference == "gpu":
            return decoder, "requested in model-config.yaml"
        gpu_rate = _NUM_SAMPLES / measure_seconds(lambda: decoder(files).cpu())
        cpu_rate = _NUM_SAMPLES / measure_seconds(lambda: on_cpu(files))
    except Exception as error:
        reason = (
            str(error)
            if isinstance(error, _GpuDecodeUnsupported)
            else f"{type(error).__name__}: {error}"[:200]
        )
        if preference == "gpu":
            logger.warning(
                "JPEGs are decoded on the CPU, not on the GPU as requested in model-config.yaml: %s", reason
            )
        return None, reason
    reason = f"{gpu_rate:.0f} images/s on the GPU, {cpu_rate:.0f} on the CPU"
    return (decoder if gpu_rate > MIN_SPEEDUP * cpu_rate else None), reason


def sample_jpegs() -> list[bytes]:
    """Return JPEGs of 640 x 480 pixels with shapes and noise, about 100 kB each. The last image is gray."""
    rng = np.random.default_rng(0)
    files = []
    for index in range(_NUM_SAMPLES):
        shapes = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((640, 480), Image.Resampling.BICUBIC), np.float32)
        grainy = (smooth + rng.normal(0, 8, (480, 640, 1))).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(grainy)
        buffer = io.BytesIO()
        (image if index < _NUM_SAMPLES - 1 else image.convert("L")).save(buffer, "JPEG", quality=88)
        files.append(buffer.getvalue())
    return files


def _check_agreement(gpu_pixels: torch.Tensor, cpu_pixels: torch.Tensor) -> None:
    """Raise _GpuDecodeUnsupported if the pixels of the GPU differ from those of the CPU."""
    difference = (gpu_pixels.float() - cpu_pixels.float()).abs().mean(dim=(1, 2, 3)).max().item()
    if not difference < _MAX_MEAN_DIFFERENCE:
        raise _GpuDecodeUnsupported(f"the GPU's pixels differ from the CPU's by {difference:.1f} levels")
