"""Tests of the error messages for unreadable image files."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from handlers.core.errors import InvalidImage
from handlers.vision.decode import decode_image
from tests.unit.handlers.vision.tiffs import tiff

NOISE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def saved(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, kind, **options)
    return buffer.getvalue()


def open_error(data: bytes) -> str:
    with pytest.raises(InvalidImage) as raised:
        decode_image(data, 10_000)
    return str(raised.value)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypheix\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"<?xml version='1.0'?><rss/>", "XML"),
        (b"\xff\x0a\xfa\x7f\x90", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (saved("JPEG2000"), "JPEG 2000"),
        (saved("ICO"), "ICO"),
        (b"8BPS\0\1", "PSD"),
        (b"%PDF-1.7\n", "PDF"),
        (b"PK\x03\x04\x14\0", "ZIP"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "Video"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\n<?xml version='1.0'?><svg/>", "SVG"),
        (b"<!DOCTYPE html><title>404</title>", "HTML"),
    ],
)
def test_unsupported_format_is_named(data, name):
    reason = open_error(data)
    assert reason.startswith(f"{name} files are not supported; supported formats: JPEG, PNG, GIF,")


@pytest.mark.parametrize(
    ("marker", "bits", "reason"),
    [
        (0xC1, 12, "12 bits per sample; save it with 8"),
        (0xC3, 8, "a lossless JPEG"),
        (0xF7, 8, "a lossless JPEG"),
        (0xC5, 8, "a hierarchical JPEG"),
    ],
)
def test_unsupported_jpeg_variant_is_named(marker, bits, reason):
    """The file begins with an EXIF thumbnail, whose frame header must be ignored."""
    plain = saved("JPEG")
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(plain)) + b"Exif\0\0" + plain
    frame = plain.index(b"\xff\xc0")
    changed = plain[:frame] + bytes([0xFF, marker]) + plain[frame + 2 : frame + 4] + bytes([bits])
    assert reason in open_error(plain[:2] + thumbnail + changed[2:] + plain[frame + 5 :])


def test_unsupported_tiff_feature_is_named():
    gray = NOISE[..., :1].astype(int)
    assert open_error(tiff(gray, 8, 1, tags={259: (3, [34712])})).endswith(
        "compression 34712; save it with LZW or Deflate"
    )
    assert open_error(tiff(gray, 10, 1)).endswith(
        "10 bits per pixel, photometric interpretation 1; save it with 8 bits per channel"
    )
    assert open_error(tiff(gray, 8, 9999)).endswith("photometric interpretation 9999; save it as RGB")
    assert "its compression (webp) is not supported" in open_error(
        tiff(NOISE.astype(int), 8, 2, tags={259: (3, [50001])})
    )


def test_unsupported_bmp_depth_is_named():
    data = bytearray(saved("BMP"))
    data[28:30] = struct.pack("<H", 2)
    assert open_error(bytes(data)).endswith("2 bits per pixel; save it with 24")
    assert open_error(bytes(data[:20])).endswith("the BMP file is damaged or of an unsupported kind")


def test_text_is_not_named_as_a_format():
    for text in (b"hello", b"P", b"Python is", b"Pfennig", b"{}"):
        assert open_error(text).startswith("the file is not in a supported image format; supported formats: ")


def test_reason_is_short_for_any_file():
    header = struct.pack("<2sHIH", b"II", 42, 8, 3)
    entries = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 7, 1_000_000, 50)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    assert len(open_error(header + directory + b"\xff" * 1_000_000)) < 200


@pytest.mark.parametrize(
    "filling", [b"\xff", b"\xaa", b"\xff\xe1\0\2", b"\xff\xff\xff\x01"], ids=["ff", "aa", "app1", "tem"]
)
def test_jpeg_with_endless_header_is_rejected_quickly(monkeypatch, filling):
    """Pillow reads such a file byte by byte, which takes 8 seconds for 16 MiB."""
    monkeypatch.setattr(Image, "open", None)
    data = b"\xff\xd8\xff\xe0\0\2" + filling * (2**18 // len(filling))
    assert "the JPEG file is damaged" in open_error(data)
