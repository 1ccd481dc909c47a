"""Error messages for unreadable image files, with instructions for the user."""

import io
import re
import struct
from collections.abc import Callable, Collection, Mapping

from PIL import Image, TiffImagePlugin

from handlers.vision.strip_metadata import jpeg_segments

_OTHER_FORMATS = (
    ("HEIC", re.compile(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)),
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51")),
    ("JPEG XR", re.compile(rb"II\xbc\x01")),
    ("ICO", re.compile(rb"\0\0[\1\2]\0.\0", re.DOTALL)),
    ("PSD", re.compile(rb"8BPS")),
    ("OpenEXR", re.compile(rb"\x76\x2f\x31\x01")),
    ("QOI", re.compile(rb"qoif")),
    ("DDS", re.compile(rb"DDS ")),
    ("PAM", re.compile(rb"P7\n")),
    ("PDF", re.compile(rb"%PDF-")),
    ("ZIP", re.compile(rb"PK\x03\x04")),
    ("Video", re.compile(rb".{4}ftyp|\x1aE\xdf\xa3", re.DOTALL)),
    (
        "SVG",
        re.compile(
            rb"\s*+(?:<\?xml[^>]{0,200}>\s*+)?(?:<!--.{0,500}?-->\s*+)?<(?:!doctype )?svg", re.I | re.S
        ),
    ),
    ("XML", re.compile(rb"\s*+<\?xml", re.IGNORECASE)),
    ("HTML", re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)),
)
_HEIF = re.compile(rb".{4}ftyp(?:mif1|msf1)", re.DOTALL)
_NETPBM = re.compile(rb"P[1-6f][\s#]")

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Markers of a JPEG's frame header, which contains the bits per sample (ITU T.81, table B.1; T.87)."""
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF, 0xF7})
_HIERARCHICAL = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_OPTIONAL_COMPRESSIONS = ("webp", "zstd", "lzma", "lerc")
"""Pillow's names of TIFF compressions that a build of libtiff may not support."""


def describe_open_failure(data: bytes, formats: Collection[str]) -> str:
    """Return the error message for a file that cannot be opened, based on its signature.

    Args:
        data: The file.
        formats: Pillow's names of the supported formats.
    """
    is_heic = _HEIF.match(data) and not re.search(rb"avi[fs]", data[:64])  # Pillow would take it for AVIF
    for name in formats:
        if is_heic and name == "AVIF":
            continue
        accepts = Image.OPEN[name][1]
        if name != "PPM" and accepts and accepts(bytes(data[:16])) is True:
            hint = _HINTS[name](data) if name in _HINTS else ""
            return f"the {name} file is damaged or of an unsupported kind{hint and ': '}{hint}"
    if _NETPBM.match(data):
        return (
            "the Netpbm file's header is invalid: it must be P1 to P6, width, height and, except for P1 and P4, the "
            "largest value, 1 to 65535"
        )
    names = ", ".join(name for name in formats if name != "MPO")
    other = next((name for name, signature in _OTHER_FORMATS if signature.match(data)), None)
    if other:
        return f"{other} files are not supported; supported formats: {names}"
    return f"the file is not in a supported image format; supported formats: {names}"


def describe_decode_failure(image: Image.Image, data: bytes) -> str:
    """Return the error message for an opened file whose pixels cannot be decoded."""
    reason = "the image is damaged or truncated"
    if image.format == "JPEG" and (hint := _jpeg_hint(data)):
        return f"{reason}, or of an unsupported kind: {hint}"
    compression = image.info.get("compression")
    if image.format == "TIFF" and compression in _OPTIONAL_COMPRESSIONS:
        return f"{reason}, or its compression ({compression}) is not supported; save it with LZW or Deflate"
    return reason


def _tiff_hint(data: bytes) -> str:
    """Return a TIFF's sample format and what to change; "" if the format is unknown or supported."""
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        bits = directory.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
        photometric = directory.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0)
        compression = directory.get(TiffImagePlugin.COMPRESSION, 1)
    except Exception:
        return ""
    if not (isinstance(bits, tuple) and all(type(n) is int for n in (*bits, photometric, compression))):
        return ""
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return f"compression {compression}; save it with LZW or Deflate"
    if photometric == 2 and set(bits) == {8}:  # the bit depth is not the reason
        return ""
    advice = "as RGB" if set(bits) == {8} else "with 8 bits per channel"
    depth = "+".join(map(str, bits[:8]))
    return f"{depth} bits per pixel, photometric interpretation {photometric}; save it {advice}"


def _jpeg_hint(data: bytes) -> str:
    try:
        marker, start = next((marker, start) for marker, start, _ in jpeg_segments(data) if marker in _FRAMES)
        bits = data[start + 4]
    except (StopIteration, IndexError, struct.error):
        return ""
    if marker in _LOSSLESS:
        return "a lossless JPEG; save it as a PNG or a baseline JPEG"
    if marker in _HIERARCHICAL:
        return "a hierarchical JPEG; save it as a baseline one"
    return "" if bits == 8 else f"{bits} bits per sample; save it with 8"


def _bmp_hint(data: bytes) -> str:
    if len(data) < 30:
        return ""
    offset = 24 if data[14] == 12 else 28  # BITMAPCOREHEADER is shorter
    (bits,) = struct.unpack_from("<H", data, offset)
    return "" if bits == 24 else f"{bits} bits per pixel; save it with 24"


_HINTS: Mapping[str, Callable[[bytes], str]] = {"TIFF": _tiff_hint, "JPEG": _jpeg_hint, "BMP": _bmp_hint}
