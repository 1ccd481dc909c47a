"""Decode Netpbm images (PBM, PGM, PPM) of any depth. Pillow reads most of them one sample at a time in Python."""

import re

import numpy as np

from handlers.core.errors import InvalidImage
from handlers.vision.rgb import scale_to_uint8

MAX_HEADER_BYTES = 65_536
"""Maximum size of a header with its comments in bytes."""
MAX_COMMENTS = 1000
"""Maximum number of comments among the samples of a plain file. Removing each takes time and memory."""
_SPACE = rb"(?:\s|#[^\r\n]*+[\r\n])++"
_SIZE = _SPACE + rb"(\d{1,9})" + _SPACE + rb"(\d{1,9})"
_BITMAP = re.compile(rb"P([14])" + _SIZE + rb"\s")
# The largest value of PGM and PPM; the scale of a gray PFM, whose samples are floats.
_GRAY_OR_COLOR = re.compile(
    rb"P(?:([2356])" + _SIZE + _SPACE + rb"(\d{1,5})|(f)" + _SIZE + _SPACE + rb"([\d.eE+-]{1,10}))\s"
)
_COMMENT = re.compile(rb"#[^\r\n]*+")
_NOT_BITS = re.compile(rb"[^01]")
_WHITESPACE = b" \t\n\r\v\f"
_PLAIN, _COLOR = b"123", b"36"


def strip_comments(data: bytes) -> bytes | None:
    """Remove comments, which Pillow reads slowly, from the header of a Netpbm file. Return None for other files."""
    head = _head(data)
    if head is None:
        return None
    fields = [field for field in head.groups() if field is not None]
    return b"P" + b" ".join(fields) + b"\n" + bytes(data[head.end() :])


def netpbm_pixels(data: bytes) -> np.ndarray:
    """Decode a PBM, PGM or PPM whose header has been checked.

    Returns:
        uint8 RGB [height, width, 3]. The largest value by the header is white.

    Raises:
        InvalidImage: Samples are missing, not numbers, or above the largest value.
    """
    head = _head(data)
    if head is None:
        raise ValueError("not a Netpbm file")
    kind, width, height = head[1], int(head[2]), int(head[3])
    body = bytes(data[head.end() :])
    white = 1 if head.re is _BITMAP else int(head[4])
    try:
        if kind == b"4":
            packed = np.frombuffer(body, np.uint8, height * -(-width // 8)).reshape(height, -1)
            samples = np.unpackbits(packed, axis=1, count=width)
        else:
            samples = _samples(body, kind, white, width * height * (3 if kind in _COLOR else 1))
    except ValueError:
        raise InvalidImage("the Netpbm image is damaged or truncated") from None
    if samples.max() > white:
        raise InvalidImage(
            f"the Netpbm image has the value {samples.max()}, above {white}, the largest value by its header"
        )
    samples = samples.reshape(height, width, -1)
    levels = samples if white == 255 and samples.dtype == np.uint8 else scale_to_uint8(samples, white)
    if head.re is _BITMAP:  # in which 1 is black
        levels = 255 - levels
    return np.repeat(levels, 3 // levels.shape[2], axis=2)


def _head(data: bytes) -> re.Match[bytes] | None:
    return _BITMAP.match(data, 0, MAX_HEADER_BYTES) or _GRAY_OR_COLOR.match(data, 0, MAX_HEADER_BYTES)


def _samples(body: bytes, kind: bytes, white: int, count: int) -> np.ndarray:
    """Return `count` samples. Raises ValueError if samples are missing, InvalidImage for too many comments."""
    if kind not in _PLAIN:
        return np.frombuffer(body, ">u2" if white > 255 else np.uint8, count)
    if body.count(b"#") > MAX_COMMENTS:
        raise InvalidImage(f"the Netpbm image has more than {MAX_COMMENTS} comments")
    text = _COMMENT.sub(b"", body)
    samples: np.ndarray
    if kind == b"1":  # its digits need no space between them
        digits = text.translate(None, _WHITESPACE)[:count]
        if _NOT_BITS.search(digits):
            raise ValueError("a bit is 0 or 1")
        samples = np.frombuffer(digits, np.uint8, count) - ord("0")
    else:
        samples = np.fromstring(text, np.uint64, sep=" ")[:count]
    if len(samples) < count:
        raise ValueError("too few samples")
    return samples
