"""Why a file is not read, and what its sender can do, for those who sent an image of another kind."""

import io
import re
import struct
from collections.abc import Callable, Collection, Mapping

from PIL import Image, TiffImagePlugin

from handlers.vision.metadata import jpeg_segments

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
"""Markers of a JPEG's frame, after which come its length and the bits per sample (ITU T.81, table B.1; T.87)."""
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF, 0xF7})
_HIERARCHICAL = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_OPTIONAL_COMPRESSIONS = ("webp", "zstd", "lzma", "lerc")
"""Of TIFFs, by Pillow's names: libtiff may have been built without."""


def reason_of(data: bytes, formats: Collection[str]) -> str:
    """In a sentence, by the file's signature; `formats` are Pillow's names of those that are read."""
    is_heic = _HEIF.match(data) and not re.search(rb"avi[fs]", data[:64])  # Pillow takes it for AVIF
    for name in formats:
        if is_heic and name == "AVIF":
            continue
        accepts = Image.OPEN[name][1]
        if name != "PPM" and accepts and accepts(bytes(data[:16])) is True:
            hint = _HINTS[name](data) if name in _HINTS else ""
            return f"the {name} file is damaged or of a kind that cannot be read{hint and ': '}{hint}"
    if _NETPBM.match(data):
        return (
            "the Netpbm file's header is not read: it must be P1 to P6, width, height and, but for P1 and P4, the "
            "largest value, 1 to 65535"
        )
    names = ", ".join(name for name in formats if name != "MPO")
    other = next((name for name, signature in _OTHER_FORMATS if signature.match(data)), None)
    if other:
        return f"{other} files cannot be read; readable formats: {names}"
    return f"not an image that can be read; readable formats: {names}"


def damage_of(image: Image.Image, data: bytes) -> str:
    """Why the pixels of a file that was opened cannot be read."""
    reason = "the image is damaged or cut off"
    if image.format == "JPEG" and (hint := _of_jpeg(data)):
        return f"{reason}, or of a kind that cannot be read: {hint}"
    compression = image.info.get("compression")
    if image.format == "TIFF" and compression in _OPTIONAL_COMPRESSIONS:
        return f"{reason}, or its compression ({compression}) is not read; save it with LZW or Deflate"
    return reason


def _of_tiff(data: bytes) -> str:
    """What a TIFF says of its samples; empty where that cannot be read."""
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
    if photometric == 2 and set(bits) == {8}:  # the depth is not the reason
        return ""
    way_out = "as RGB" if set(bits) == {8} else "with 8 bits per channel"
    depth = "+".join(map(str, bits[:8]))
    return f"{depth} bits per pixel, photometric interpretation {photometric}; save it {way_out}"


def _of_jpeg(data: bytes) -> str:
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


def _of_bmp(data: bytes) -> str:
    if len(data) < 30:
        return ""
    offset = 24 if data[14] == 12 else 28  # BITMAPCOREHEADER has no room for more
    (bits,) = struct.unpack_from("<H", data, offset)
    return "" if bits == 24 else f"{bits} bits per pixel; save it with 24"


_HINTS: Mapping[str, Callable[[bytes], str]] = {"TIFF": _of_tiff, "JPEG": _of_jpeg, "BMP": _of_bmp}
