"""Remove metadata that prevents Pillow from reading the pixels of a file.

Browsers, libpng and libjpeg ignore invalid or very large texts, color profiles and EXIF data; Pillow often fails.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

from handlers.core.errors import InvalidImage

_PNG = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000
"""Maximum number of chunks of a PNG. Encoders write a few thousand for the largest images."""
_IHDR_END, _COLOR_TYPE = 33, 25
_ANCILLARY = 0x20  # bit 5 of the first letter of a chunk's type (PNG, 5.4)
_PALETTE_ENTRIES = 256
# Texts that may contain an orientation: ImageMagick's EXIF, and XMP.
_ORIENTATION_TEXTS = ((b"tEXt", b"Raw profile type exif\0"), (b"zTXt", b"Raw profile type exif\0"),
                      (b"iTXt", b"XML:com.adobe.xmp\0\0"))  # fmt: skip
_MAX_TEXT_BYTES = 2**20
"""Maximum size of a decompressed text in bytes. Pillow rejects files with longer texts."""

_MARKER = re.compile(rb"\xff([^\x00\xff])")
_APP0, _APP1, _APP14, _APP15, _COM, SOS = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE, 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})  # TEM, RSTn, SOI and EOI
_MAX_SEGMENTS = 10_000
_MAX_BYTES_BETWEEN = 2**16
_JFIF_BYTES = 18
"""Minimum size of a JFIF segment in bytes, with marker and length. libjpeg ignores shorter ones."""
_EXIF = b"Exif\0\0"

_TIFF = (b"II*\0", b"MM\0*")
_IFD_ENTRY_BYTES = 12
_TIFF_PIXEL_TAGS = frozenset(
    {
        *range(256, 260), 262, 266, *range(273, 275), *range(277, 280), 284, 292, 293, 317, 320, *range(322, 326),
        332, 338, 339, 347, *range(512, 522), *range(529, 533),
    }
)  # fmt: skip
"""Tags that determine the pixels of a TIFF and its orientation (TIFF 6.0), including those of Technical Note 2."""


def strip_ancillary_data(data: bytes) -> bytes:
    """Remove data that determine neither pixels nor orientation from a PNG or TIFF. Other files stay unchanged.

    Raises:
        InvalidImage: A PNG has more than MAX_CHUNKS chunks.
    """
    head = bytes(data[: len(_PNG)])
    if head == _PNG:
        return _png(bytes(data))
    if head[:4] in _TIFF:
        with suppress(struct.error):  # truncated: Pillow reports it
            return _tiff(bytes(data))
    return data


def _png(data: bytes) -> bytes:
    """Return a PNG with only the critical chunks, the transparency and the orientation.

    Ancillary chunks with a wrong checksum or length are removed, because libpng ignores them.
    """
    if data[12:16] != b"IHDR" or len(data) < _IHDR_END:
        return data
    spans = [(0, len(_PNG))]
    chunk_types: set[bytes] = set()
    palette_entries = 0
    at = len(_PNG)
    chunks = 0
    while at + 8 <= len(data) and b"IEND" not in chunk_types:
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise InvalidImage(f"the PNG has more than {MAX_CHUNKS} chunks; save it without metadata")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind == b"PLTE":
            palette_entries = length // 3
        if not kind[0] & _ANCILLARY or (
            end <= len(data)
            and kind not in chunk_types
            and _affects_pixels(data, at, kind, length, palette_entries, b"IDAT" in chunk_types)
        ):
            chunk_types.add(kind)
            if spans[-1][1] == at:
                spans[-1] = spans[-1][0], end
            else:
                spans.append((at, end))
        at = end
    return b"".join(data[start:end] for start, end in spans)


def _affects_pixels(
    data: bytes, at: int, kind: bytes, length: int, palette_entries: int, after_pixels: bool
) -> bool:
    """Return True if the ancillary chunk at `at` is valid and determines the pixels or orientation."""
    if kind == b"tRNS":
        lengths = {0: (2,), 2: (6,), 3: range(1, min(palette_entries, _PALETTE_ENTRIES) + 1)}
        if after_pixels or length not in lengths.get(data[_COLOR_TYPE], ()):
            return False
    elif kind != b"eXIf" and not any(
        kind == text and data.startswith(keyword, at + 8) for text, keyword in _ORIENTATION_TEXTS
    ):
        return False
    content = memoryview(data)[at + 4 : at + 8 + length]
    if zlib.crc32(content) != int.from_bytes(data[at + 8 + length : at + 12 + length]):
        return False
    if kind == b"zTXt":
        return _is_small_zlib(content[4 + len(_ORIENTATION_TEXTS[1][1]) + 1 :])
    return kind != b"iTXt" or length <= _MAX_TEXT_BYTES


def _is_small_zlib(content: memoryview) -> bool:
    try:
        stream = zlib.decompressobj()
        stream.decompress(content, _MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return not stream.unconsumed_tail


def metadata_free_variants(data: bytes) -> Iterator[bytes]:
    """Yield variants of a file that Pillow cannot open, in order of decreasing metadata."""
    data = bytes(data)
    try:
        if data.startswith(b"\xff\xd8"):
            yield _jpeg(data, keep_exif=True)
            yield _jpeg(data, keep_exif=False)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            yield _webp(data)
        elif data.startswith((b"GIF87a", b"GIF89a")):
            yield _gif(data)
    except (IndexError, struct.error):  # truncated within its metadata
        return


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, start and end of each segment up to the first scan, which ends with the file.

    Skips bytes between segments, as libjpeg does. Raises IndexError or struct.error if the file has no scan.
    """
    at = 2
    for _ in range(_MAX_SEGMENTS):
        match = _MARKER.search(data, at)
        if match is None:
            break
        marker, start, at = match[1][0], match.end() - 2, match.end()
        if marker in _WITHOUT_LENGTH:
            continue
        if marker == SOS:
            yield marker, start, len(data)
            return
        at += struct.unpack_from(">H", data, at)[0]
        yield marker, start, at
    raise IndexError("no scan")


def has_jpeg_header(data: bytes) -> bool:
    """Return True if a JPEG has a scan and few bytes between its segments. Pillow reads such bytes one by one."""
    skipped_bytes, before = 0, 2
    try:
        for _, start, end in jpeg_segments(data):
            skipped_bytes += start - before
            before = end
    except (IndexError, struct.error):
        return False
    return skipped_bytes <= _MAX_BYTES_BETWEEN


def _jpeg(data: bytes, keep_exif: bool) -> bytes:
    segments = [b"\xff\xd8"]
    for marker, start, end in jpeg_segments(data):
        is_metadata = (
            (_APP1 <= marker <= _APP15 and marker != _APP14)
            or marker == _COM
            or (marker == _APP0 and end - start < _JFIF_BYTES)
        )
        if not is_metadata or (keep_exif and marker == _APP1 and data.startswith(_EXIF, start + 4)):
            segments.append(data[start:end])
    return b"".join(segments)


def _webp(data: bytes) -> bytes:
    """Return a WebP with only the first image. The VP8X flags for a color profile, EXIF and XMP are cleared."""
    chunks = []
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + length % 2
        if kind == b"VP8X" and length >= 1:
            flags = data[at + 8] & ~0b101100
            chunks.append(data[at : at + 8] + bytes([flags]) + data[at + 9 : end])
        elif kind in (b"ANIM", b"ALPH", b"VP8 ", b"VP8L", b"ANMF"):
            chunks.append(data[at:end])
        at = end
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            break
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _gif(data: bytes) -> bytes:
    """Return a GIF with only the global palette, first image and its graphic control extension (GIF89a, 23)."""
    at = 13 + _palette_bytes(data[10])
    parts = [data[:at]]
    while data[at] != 0x2C:
        if data[at] != 0x21:
            raise IndexError("no extension and no image")
        end = _after_sub_blocks(data, at + 2)
        if data[at + 1] == 0xF9 and data[at + 2] == 4:
            parts.append(data[at:end])
        at = end
    pixels = at + 10 + _palette_bytes(data[at + 9]) + 1
    return b"".join([*parts, data[at : _after_sub_blocks(data, pixels)], b";"])


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += data[at] + 1
    return at + 1


def _tiff(data: bytes) -> bytes:
    """Return a TIFF whose first directory has only the tags that determine the pixels."""
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries = [
        data[at : at + _IFD_ENTRY_BYTES]
        for at in range(start + 2, start + 2 + count * _IFD_ENTRY_BYTES, _IFD_ENTRY_BYTES)
    ]
    pixel_entries = [
        entry for entry in entries if struct.unpack(order + "H", entry[:2])[0] in _TIFF_PIXEL_TAGS
    ]
    directory = struct.pack(order + "H", len(pixel_entries)) + b"".join(pixel_entries) + bytes(4)
    return data[:start] + directory + data[start + len(directory) :]
