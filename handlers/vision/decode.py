"""Bytes to an upright RGB image, within limits."""

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
from handlers.vision.jpeg import decode_jpeg, with_end_marker
from handlers.vision.metadata import (
    SOS,
    has_jpeg_header,
    jpeg_segments,
    without_ancillary,
    without_metadata,
)
from handlers.vision.netpbm import netpbm_pixels, without_comments
from handlers.vision.pixels import checked_pixels
from handlers.vision.rgb import fit_png_transparency, to_rgb
from handlers.vision.tiff import check_tiff
from handlers.vision.unreadable import damage_of, reason_of

# Formats that people send. Pillow reads more: through other programs (EPS), or before its size can be looked at
# (ICO).
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM")
_JPEG = ("JPEG", "MPO")
MAX_SCANS = 100
"""Of a progressive JPEG; encoders write about ten, and each costs a pass over all pixels."""
LARGE = 16_000_000
"""Pixels, by the header. Images of more are decoded one at a time, so that a batch of the largest does not take the
memory of each at once; those of most cameras and phones (12 million) have every thread."""
_one_large = threading.Lock()
# The head of a scan of one to four components (ITU T.81, B.2.3): what follows an image in its file holds any bytes.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_BASE64 = re.compile(rb"\s*+(?:(?i:data:)|/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK|[A-Za-z0-9+/_-]{32})")
"""A data URL, base64 of an image's signature, or base64 of anything."""
_ORIENTATION = 0x0112
# How the pixels [height, width, 3] of each EXIF orientation turn upright (EXIF 2.32, table 6); from 5 on they lie.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
_FIRST_LYING = 5
# The limit is ours (`max_pixels`), by the header, before anything is decoded; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of odd metadata that does not keep it from reading the pixels. Said once for the whole process:
# `warnings.catch_warnings` around each image would be undone by another thread.
warnings.filterwarnings("ignore", module=r"PIL\.")
logger = logging.getLogger(__name__)


class Opened(NamedTuple):
    """An image's file whose header is read and within the limits; of its pixels nothing is decoded yet."""

    image: Image.Image
    data: bytes


def decode_image(
    payload: Payload,
    max_pixels: int,
    max_bytes: int = sys.maxsize,
    at_least: tuple[int, int] | None = None,
) -> np.ndarray:
    """The first frame of an image, turned upright by its EXIF orientation, alpha laid on white: uint8 RGB
    [height, width, 3]. It may be read-only.

    `payload` is a file's bytes, the same in base64 (see `decode_base64`), or an array (see `checked_pixels`).
    With `at_least` = (height, width), a JPEG that is twice as large or more may come smaller, but not below that;
    without it every pixel is as stored. Safe to call from several threads at once; above LARGE one waits for another.
    Raises InvalidImage, and ImageTooLarge for more than `max_pixels` pixels or a file of more than `max_bytes`.
    """
    if isinstance(payload, np.ndarray):
        return checked_pixels(payload, lambda width, height: _check_size(width, height, max_pixels))
    return pixels_of(open_image(payload, max_pixels, max_bytes), at_least)


def open_image(payload: bytes | str, max_pixels: int, max_bytes: int = sys.maxsize) -> Opened:
    """What can be known of a file without decoding it. Takes and raises what `decode_image` does."""
    if isinstance(payload, bytes) and _is_base64(payload):
        payload = payload.decode()
    data = from_base64(payload) if isinstance(payload, str) else payload
    if not data:
        raise InvalidImage("the image is empty")
    if len(data) > max_bytes:
        raise ImageTooLarge(f"the image has {len(data)} bytes; at most {max_bytes} are allowed")
    image = _open(data)
    _check_size(image.width, image.height, max_pixels)
    _check_layout(image, data)
    return Opened(image, data)


def pixels_of(opened: Opened, at_least: tuple[int, int] | None = None) -> np.ndarray:
    """The rest of `decode_image`, once for each file that was opened. Raises InvalidImage."""
    image = opened.image
    with _one_large if image.width * image.height > LARGE else nullcontext():
        return _upright(image, opened.data, at_least)


def _upright(image: Image.Image, data: bytes, at_least: tuple[int, int] | None) -> np.ndarray:
    pixels = None
    if image.format in _JPEG and image.mode in ("RGB", "L"):
        if at_least and orientation(image) >= _FIRST_LYING:
            at_least = at_least[1], at_least[0]
        content = with_end_marker(data) if _has_one_scan(image, data) else data
        pixels = decode_jpeg(content, (image.height, image.width), at_least)
    elif image.format == "PPM" and image.mode != "F":
        pixels = netpbm_pixels(data)
    if pixels is None:
        pixels = _by_pillow(image, data)
    turn = _TURNS.get(
        orientation(image)
    )  # of a PNG only now: looking for it decodes, and forgives what is broken
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _has_one_scan(image: Image.Image, data: bytes) -> bool:
    """Whether all of a JPEG is in its first scan; of several, one that is cut off would leave the image gray."""
    start = next((start for marker, start, _ in jpeg_segments(data) if marker == SOS), None)
    components = len(image.getbands())
    return not image.info.get("progressive") and start is not None and data[start + 4] == components


def _by_pillow(image: Image.Image, data: bytes) -> np.ndarray:
    frame = image.tile[0].extents if isinstance(image, GifImageFile) and image.tile else None
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:
        raise InvalidImage(damage_of(image, bytes(data))) from None
    try:
        return np.asarray(_on_white(to_rgb(image), frame))
    except (MemoryError, InvalidImage):
        raise
    except Exception as error:
        logger.warning("an image of mode %s could not be converted", image.mode, exc_info=error)
        raise InvalidImage(f"pixels of this kind ({image.mode}) cannot be read") from None


def _on_white(image: Image.Image, frame: tuple[int, int, int, int] | None) -> Image.Image:
    """A GIF's canvas with its first `frame` alone (left, top, right, bottom), as browsers show it."""
    if frame is None or frame == (0, 0, *image.size):
        return image
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image.crop(frame), frame)
    return canvas


def _check_layout(image: Image.Image, data: bytes) -> None:
    """What makes a small file costly although its size is allowed: JPEG scans without end, TIFF tiles of any size."""
    if image.format in _JPEG and len(_SCAN.findall(data)) > MAX_SCANS:
        raise InvalidImage(f"the JPEG has more than {MAX_SCANS} scans")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_size(*check_tiff(image), max(4 * image.width * image.height, 1 << 20))


def from_base64(text: str) -> bytes:
    """Raises InvalidImage."""
    try:
        return decode_base64(text)
    except ValueError as error:
        raise InvalidImage(
            f"an image that is sent as text must be a file in base64; this one {error}"
        ) from None


def _is_base64(data: bytes) -> bool:
    """Whether a file's bytes are its base64, which begins like no image: in a form's field, or as a raw body."""
    return _BASE64.match(data) is not None and data.isascii()


def _open(data: bytes) -> Image.Image:
    if bytes(data[:3]) == b"\xff\xd8\xff" and not has_jpeg_header(data):
        raise InvalidImage(reason_of(bytes(data), _formats()))
    netpbm = without_comments(data)
    content = without_ancillary(data) if netpbm is None else netpbm
    # What begins like a Netpbm file and has no such header would cost time in Pillow.
    formats = [name for name in _formats() if (name == "PPM") == (netpbm is not None)]
    for candidate in itertools.chain([content], without_metadata(content)):
        try:
            image = Image.open(io.BytesIO(candidate), formats=formats)
        except MemoryError:
            raise
        except Exception as error:
            logger.debug("Pillow does not open the file", exc_info=error)
        else:
            fit_png_transparency(image, content)
            return image
    raise InvalidImage(reason_of(bytes(data), _formats()))


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLarge(f"the image has {width} x {height} pixels; at most {max_pixels} are allowed")


def orientation(image: Image.Image) -> int:
    """By EXIF, else 1, which is upright. Other metadata may be as odd as it likes."""
    try:
        turned: int = image.getexif().get(_ORIENTATION, 1)
        return turned if turned in _TURNS else 1
    except Exception:  # unreadable EXIF: the pixels are there all the same
        return 1
