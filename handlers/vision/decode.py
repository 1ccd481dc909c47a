"""Decode image files to upright RGB pixels, within limits."""

import io
import itertools
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.GifImagePlugin import GifImageFile

from handlers.core.base64_text import decode_base64
from handlers.core.errors import ImageTooLarge, InvalidImage
from handlers.core.tensor import Payload
from handlers.vision.image_errors import describe_decode_failure, describe_open_failure
from handlers.vision.jpeg import append_end_marker, decode_jpeg
from handlers.vision.netpbm import netpbm_pixels, strip_comments
from handlers.vision.pixel_validation import validate_pixels
from handlers.vision.rgb import fit_png_transparency, to_rgb
from handlers.vision.strip_metadata import (
    SOS,
    has_jpeg_header,
    jpeg_segments,
    metadata_free_variants,
    strip_ancillary_data,
)
from handlers.vision.tiff import check_tiff

# Pillow reads more formats, but with other programs (EPS) or before the size can be checked (ICO).
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM")
_JPEG = ("JPEG", "MPO")
MAX_SCANS = 100
"""Maximum number of scans of a JPEG. Encoders write about ten, and each takes a pass over all pixels."""
LARGE_IMAGE_PIXELS = 16_000_000
"""Size in pixels above which images are decoded one at a time, to limit the memory of a batch. Photos of most cameras
and phones have 12 million pixels and are decoded in parallel."""
_large_image_lock = threading.Lock()
# The header of a scan of one to four components (ITU T.81, B.2.3). Data after an image may hold any bytes.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_BASE64 = re.compile(rb"\s*+(?:(?i:data:)|/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK|[A-Za-z0-9+/_-]{32})")
"""A data URL, base64 of an image's signature, or any base64 of 32 characters."""
_ORIENTATION = 0x0112
# Turn pixels [height, width, 3] upright, by EXIF orientation (EXIF 2.32, table 6). From 5 on, height and width swap.
_UPRIGHT_TRANSFORMS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
_FIRST_TRANSPOSED = 5
# `max_pixels` is compared with the header before decoding; Pillow's limit would only cause a warning.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns about invalid metadata although it can read the pixels. The filter is global because
# `warnings.catch_warnings` is not safe with threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logger = logging.getLogger(__name__)


class OpenedImage(NamedTuple):
    """An image file whose header has been checked. Its pixels are not decoded yet."""

    image: Image.Image
    data: bytes


def decode_image(
    payload: Payload,
    max_pixels: int,
    max_bytes: int = sys.maxsize,
    min_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Decode the first frame of an image, turned upright by its EXIF orientation, with alpha blended onto white.

    Thread-safe. Images above LARGE_IMAGE_PIXELS are decoded one at a time.

    Args:
        payload: The bytes of a file, the file in base64 (see `decode_base64`), or an array (see `validate_pixels`).
        max_pixels: Maximum number of pixels, which is compared with the header.
        max_bytes: Maximum size of the file in bytes.
        min_size: Minimum (height, width). A JPEG at least twice as large may be decoded at a reduced size, but not
            below this minimum. None: full size.

    Returns:
        uint8 RGB [height, width, 3], possibly read-only.

    Raises:
        InvalidImage: The payload is not a readable image.
        ImageTooLarge: The image exceeds `max_pixels` or `max_bytes`.
    """
    if isinstance(payload, np.ndarray):
        return validate_pixels(payload, lambda width, height: _check_size(width, height, max_pixels))
    return decode_pixels(open_image(payload, max_pixels, max_bytes), min_size)


def open_image(payload: bytes | str, max_pixels: int, max_bytes: int = sys.maxsize) -> OpenedImage:
    """Check an image file without decoding its pixels. Arguments and errors are those of `decode_image`."""
    if isinstance(payload, bytes) and _is_base64(payload):
        payload = payload.decode()
    data = decode_base64_image(payload) if isinstance(payload, str) else payload
    if not data:
        raise InvalidImage("the image is empty")
    if len(data) > max_bytes:
        raise ImageTooLarge(f"the image has {len(data)} bytes; at most {max_bytes} are allowed")
    image = _open(data)
    _check_size(image.width, image.height, max_pixels)
    _check_layout(image, data)
    return OpenedImage(image, data)


def decode_pixels(opened: OpenedImage, min_size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an opened image's pixels. Call once per image. Arguments and errors are those of `decode_image`."""
    image = opened.image
    with _large_image_lock if image.width * image.height > LARGE_IMAGE_PIXELS else nullcontext():
        return _upright(image, opened.data, min_size)


def _upright(image: Image.Image, data: bytes, min_size: tuple[int, int] | None) -> np.ndarray:
    pixels = None
    if image.format in _JPEG and image.mode in ("RGB", "L"):
        if min_size and orientation(image) >= _FIRST_TRANSPOSED:
            min_size = min_size[1], min_size[0]
        content = append_end_marker(data) if _has_one_scan(image, data) else data
        pixels = decode_jpeg(content, (image.height, image.width), min_size)
    elif image.format == "PPM" and image.mode != "F":
        pixels = netpbm_pixels(data)
    if pixels is None:
        pixels = _decode_with_pillow(image, data)
    # Not earlier: for a PNG, reading the orientation decodes the file and ignores damage.
    transform = _UPRIGHT_TRANSFORMS.get(orientation(image))
    return pixels if transform is None else np.ascontiguousarray(transform(pixels))


def _has_one_scan(image: Image.Image, data: bytes) -> bool:
    """Return True if a JPEG has one scan. A JPEG with several scans would be gray if one were missing."""
    start = next((start for marker, start, _ in jpeg_segments(data) if marker == SOS), None)
    components = len(image.getbands())
    return not image.info.get("progressive") and start is not None and data[start + 4] == components


def _decode_with_pillow(image: Image.Image, data: bytes) -> np.ndarray:
    frame = image.tile[0].extents if isinstance(image, GifImageFile) and image.tile else None
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:
        raise InvalidImage(describe_decode_failure(image, bytes(data))) from None
    try:
        return np.asarray(_on_white(to_rgb(image), frame))
    except (MemoryError, InvalidImage):
        raise
    except Exception as error:
        logger.warning("an image of mode %s could not be converted", image.mode, exc_info=error)
        raise InvalidImage(
            f"pixels of mode {image.mode} cannot be converted to RGB; save the image as RGB"
        ) from None


def _on_white(image: Image.Image, frame: tuple[int, int, int, int] | None) -> Image.Image:
    """Draw the first `frame` (left, top, right, bottom) of a GIF on a white canvas, as browsers do."""
    if frame is None or frame == (0, 0, *image.size):
        return image
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image.crop(frame), frame)
    return canvas


def _check_layout(image: Image.Image, data: bytes) -> None:
    """Reject small files that take long to decode because of many JPEG scans or huge TIFF tiles."""
    if image.format in _JPEG and len(_SCAN.findall(data)) > MAX_SCANS:
        raise InvalidImage(f"the JPEG has more than {MAX_SCANS} scans; save it as a baseline JPEG")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_size(*check_tiff(image), max(4 * image.width * image.height, 1 << 20))


def decode_base64_image(text: str) -> bytes:
    """Decode an image file in base64. Raises InvalidImage."""
    try:
        return decode_base64(text)
    except ValueError as error:
        raise InvalidImage(
            f"an image that is sent as text must be a file in base64; the text {error}"
        ) from None


def _is_base64(data: bytes) -> bool:
    """Return True if the bytes of a form field or raw body are base64. No image format begins like base64."""
    return _BASE64.match(data) is not None and data.isascii()


def _open(data: bytes) -> Image.Image:
    if bytes(data[:3]) == b"\xff\xd8\xff" and not has_jpeg_header(data):
        raise InvalidImage(describe_open_failure(bytes(data), _formats()))
    netpbm = strip_comments(data)
    content = strip_ancillary_data(data) if netpbm is None else netpbm
    # Pillow takes long for a file that begins like Netpbm but has no valid header.
    formats = [name for name in _formats() if (name == "PPM") == (netpbm is not None)]
    for candidate in itertools.chain([content], metadata_free_variants(content)):
        try:
            image = Image.open(io.BytesIO(candidate), formats=formats)
        except MemoryError:
            raise
        except Exception as error:
            logger.debug("Pillow cannot open the file", exc_info=error)
        else:
            fit_png_transparency(image, content)
            return image
    raise InvalidImage(describe_open_failure(bytes(data), _formats()))


@cache
def _formats() -> tuple[str, ...]:
    """Return the FORMATS that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLarge(f"the image has {width} x {height} pixels; at most {max_pixels} are allowed")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 (upright) if the orientation is missing or invalid."""
    try:
        value: int = image.getexif().get(_ORIENTATION, 1)
        return value if value in _UPRIGHT_TRANSFORMS else 1
    except Exception:  # unreadable EXIF does not affect the pixels
        return 1
