"""Tests that files with invalid or very large metadata are decoded as browsers, libpng and libjpeg decode them."""

import io
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from handlers.core.errors import InvalidImage
from handlers.vision import strip_metadata
from handlers.vision.decode import decode_image
from handlers.vision.strip_metadata import strip_ancillary_data

LIMIT = 1_000_000
GRAY = np.arange(48 * 64).reshape(48, 64) % 251
COLORS = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], axis=2).astype(np.uint8)
PHOTO = Image.fromarray(COLORS).resize((128, 96), Image.Resampling.BICUBIC)
TURNED = 6


def chunk(kind: bytes, content: bytes = b"", crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(
    pixels: np.ndarray,
    bits: int = 8,
    color_type: int = 2,
    before: bytes = b"",
    after: bytes = b"",
    end: bool = True,
) -> bytes:
    """Return a PNG of `pixels` [height, width * channels] with `bits`, and chunks before and after the pixel data."""
    digits = (pixels[..., None].astype(int) >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(digits.reshape(len(pixels), -1).astype(np.uint8), axis=1)
    width = pixels.shape[1] // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    header = struct.pack(">IIBBBBB", width, len(pixels), bits, color_type, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), before, chunk(b"IDAT", content), after]
    return b"".join([*parts, chunk(b"IEND") if end else b""])


def exif(orientation: int = TURNED) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes().removeprefix(b"Exif\0\0")


def read(data: bytes) -> np.ndarray:
    return decode_image(data, LIMIT)


ROWS = COLORS.reshape(len(COLORS), -1)
TEXT = b"Comment\0\0" + zlib.compress(bytes(2**21))
ODD_CHUNKS = {
    "a compressed text of 2 MiB": chunk(b"zTXt", TEXT),
    "an international text of 2 MiB": chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2**21))),
    "a color profile of 2 MiB": chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2**21))),
    "a text with a wrong checksum": chunk(b"tEXt", b"Comment\0text", crc=1),
    "a text that cannot be inflated": chunk(b"zTXt", b"Comment\0\0none"),
    "an unknown compression": chunk(b"zTXt", b"Comment\0\7none") + chunk(b"iCCP", b"icc\0\7none"),
    "an empty color profile": chunk(b"iCCP"),
    "short chunks": b"".join(chunk(kind, b"\1") for kind in (b"cHRM", b"pHYs", b"gAMA", b"sBIT", b"tIME", b"bKGD")),
    "empty chunks": b"".join(chunk(kind) for kind in (b"cHRM", b"pHYs", b"gAMA", b"sRGB", b"eXIf", b"acTL", b"fcTL")),
    "an animation out of order": chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + chunk(b"fcTL", b"\0\0\0\7" + bytes(22)),
    "texts with names that Pillow uses": b"".join(
        chunk(b"tEXt", name + b"\0" + b"1") for name in (b"transparency", b"interlace", b"exif", b"icc_profile")
    ),
    "a private chunk with a wrong checksum": chunk(b"prVt", b"private", crc=0),
    "transparency of a wrong length": chunk(b"tRNS", b"\0\1"),
    "transparency with a wrong checksum": chunk(b"tRNS", bytes(6), crc=0),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD_CHUNKS.values(), ids=ODD_CHUNKS)
def test_png_with_invalid_ancillary_chunks_is_read(odd):
    for data in (png(ROWS, before=odd), png(ROWS, after=odd), png(ROWS, before=odd, after=odd, end=False)):
        assert (read(data) == COLORS).all()


def test_png_truncated_after_its_pixels_is_read():
    data = png(ROWS, after=chunk(b"tEXt", b"Comment\0" + bytes(100)))
    for end in range(data.index(b"tEXt") - 4, len(data)):
        assert (read(data[:end]) == COLORS).all()


def test_png_truncated_before_or_in_its_pixels_is_rejected():
    data = png(ROWS, before=chunk(b"tRNS", bytes(6)))
    for end in [*range(1, 60), data.index(b"IDAT") + 100]:
        with pytest.raises(InvalidImage):
            read(data[:end])


@pytest.mark.parametrize(
    "oriented",
    [
        {"before": chunk(b"eXIf", exif())},
        {"after": chunk(b"eXIf", exif())},
        {"before": chunk(b"zTXt", b"Raw profile type exif\0\0"
            + zlib.compress(b"\nexif\n  %d\n%s\n" % (len(exif()) + 6, (b"Exif\0\0" + exif()).hex().encode())))},
        {"before": chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')},
    ],
)  # fmt: skip
def test_orientation_of_png_is_applied(oriented):
    assert (read(png(ROWS, **oriented)) == np.rot90(COLORS, -1)).all()


def test_invalid_orientation_of_png_is_ignored():
    for broken in (exif()[:10], b"", b"MM\0*" + b"\xff" * 100):
        assert (read(png(ROWS, before=chunk(b"eXIf", broken))) == COLORS).all()
    assert (read(png(ROWS, before=chunk(b"eXIf", exif(), crc=0))) == COLORS).all()
    text = b"Raw profile type exif\0\0" + zlib.compress(bytes(2**22))
    assert (read(png(ROWS, before=chunk(b"zTXt", text))) == COLORS).all()


@pytest.mark.full
def test_metadata_of_png_is_not_decompressed():
    """The file has ten color profiles of 50 MiB each in half a megabyte."""
    bomb = b"".join(chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(50 * 2**20))) for _ in range(10))
    tracemalloc.start()
    try:
        assert (read(png(ROWS, before=bomb)) == COLORS).all()
        assert tracemalloc.get_traced_memory()[1] < 4 * len(bomb) + 2**20
    finally:
        tracemalloc.stop()


def test_png_with_too_many_chunks_is_rejected(monkeypatch):
    monkeypatch.setattr(strip_metadata, "MAX_CHUNKS", 50)
    with pytest.raises(InvalidImage, match="more than 50 chunks"):
        read(png(ROWS, before=chunk(b"tEXt") * 50))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_transparent_gray_of_png_is_blended_onto_white(bits):
    values = np.arange(256 if bits > 4 else 2**bits)[None].repeat(2, axis=0) * (257 if bits == 16 else 1)
    levels = np.rint(values * 255 / (2**bits - 1)).astype(int)
    for transparent in (0, 1 if bits < 16 else 257, int(values.max())):
        data = png(values, bits, 0, before=chunk(b"tRNS", struct.pack(">H", transparent)))
        expected = np.where(values == transparent, 255, levels)
        assert (read(data) == expected[..., None]).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_transparent_color_of_png_is_blended_onto_white(bits):
    factor = 257 if bits == 16 else 1
    red, green, blue = COLORS[5, 7].astype(int) * factor
    data = png(ROWS.astype(int) * factor, bits, before=chunk(b"tRNS", struct.pack(">HHH", red, green, blue)))
    is_transparent = (COLORS[5, 7] == COLORS).all(axis=2, keepdims=True)
    assert is_transparent.any()
    assert (read(data) == np.where(is_transparent, 255, COLORS)).all()


@pytest.mark.parametrize(("bits", "color_type"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (16, 2), (8, 4), (16, 4),
                                                  (8, 6), (16, 6)])  # fmt: skip
def test_png_of_every_depth_is_decoded(bits, color_type):
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    levels = COLORS[..., :1] if color_type in (0, 4) else COLORS
    values = np.rint(levels / 255 * (2**bits - 1)).astype(int)
    expected = np.rint(values * 255 / (2**bits - 1)).astype(int)
    if channels in (2, 4):
        alpha = np.full_like(values[..., :1], 2**bits - 1)
        alpha[:10] = 0
        expected[:10] = 255
        values = np.concatenate([values, alpha], axis=2)
    pixels = read(png(values.reshape(len(values), -1), bits, color_type)).astype(int)
    assert np.abs(pixels - expected).max() <= 1


def saved(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    PHOTO.save(buffer, kind, **options)
    return buffer.getvalue()


def everything() -> dict:
    tags = Image.Exif()
    tags[0x010E], tags[0x011A], tags[0x0128] = "a description", 72.0, 2
    tags.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {"exif": tags, "icc_profile": icc, "xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"}


def jpeg_segments(data: bytes) -> list[tuple[int, int]]:
    """Return the start (of the marker) and end of each metadata segment of a JPEG."""
    segments, at = [], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if 0xE0 <= data[at + 1] <= 0xEF or data[at + 1] == 0xFE:
            segments.append((at, end))
        at = end
    return segments


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_jpeg_with_damaged_metadata_is_read(kind):
    options = (
        {"save_all": True, "append_images": [PHOTO]}
        if kind == "MPO"
        else everything() | {"comment": b"hello"}
    )
    data = saved(kind, **options)
    expected, segments, random_ = read(data), jpeg_segments(data), random.Random(3)
    for _ in range(300):
        start, end = random_.choice(segments)
        damaged = bytearray(data)
        for _ in range(random_.choice([1, 3, 30])):
            damaged[random_.randrange(start + 4, end)] = random_.choice([0, 255, random_.randrange(256)])
        pixels = read(bytes(damaged))
        assert pixels.size == expected.size  # a damaged orientation may turn it
        assert pixels.shape != expected.shape or (pixels == expected).all()
    for start, end in segments:
        for length in range(min(24, end - start - 4)):
            marker = data[start : start + 2] + struct.pack(">H", length + 2)
            pixels = read(data[:start] + marker + data[start + 4 : start + 4 + length] + data[end:])
            assert (pixels == expected).all()


def test_bytes_between_jpeg_segments_are_skipped():
    data = saved("JPEG", exif=exif_of(TURNED))
    for start, _ in jpeg_segments(data):
        for extra in (b"\0", b"text between", b"\xff\0\xff\xff", b"\xff\xfe\0\2"):
            assert (read(data[:start] + extra + data[start:]) == read(data)).all()


def exif_of(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_with_damaged_metadata_is_read(lossless):
    """This includes wrong lengths of chunks after the image, and files truncated after the image."""
    data = saved("WEBP", lossless=lossless, **everything())
    expected = read(data)
    pixels_at = data.index(b"VP8L" if lossless else b"VP8 ")
    pixels_end = pixels_at + 8 + struct.unpack_from("<I", data, pixels_at + 4)[0]
    for name in (b"ICCP", b"EXIF", b"XMP "):
        at = data.index(name)
        size = struct.unpack_from("<I", data, at + 4)[0]
        damaged = data[: at + 8] + b"\xff" * size + data[at + 8 + size :]
        assert (read(damaged) == expected).all()
        if at > pixels_at:
            for length in (0, 1, size + 1, size + 1000, 2**32 - 1):
                assert (read(data[: at + 4] + struct.pack("<I", length) + data[at + 8 :]) == expected).all()
    for end in range(pixels_end + 1, len(data), 7):
        assert (read(data[:end]) == expected).all()


def test_animation_truncated_after_first_frame_is_read():
    for kind, options in (("WEBP", {"lossless": True}), ("GIF", {})):
        data = saved(kind, save_all=True, append_images=[PHOTO.rotate(90)] * 2, duration=10, **options)
        expected = read(data)
        assert (read(data[: len(data) * 3 // 4]) == expected).all()


def test_gif_with_invalid_extensions_is_read():
    data = saved("GIF", comment=b"hello" * 80, save_all=True, append_images=[PHOTO.rotate(90)], loop=3)
    expected = read(data)
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    xmp = b"<?xpacket?>" * 50 + b"\1" + bytes(range(255, -1, -1)) + b"\0"
    for extension in (
        b"\x21\xff\x0bNETSCAPE2.0\0", b"\x21\xff\x0bNETSCAPE2.0\1\1\0", b"\x21\xff\x01N\0", b"\x21\xfe\0",
        b"\x21\xfe\x03\xff\xfe\xfd\0", b"\x21\xff\x0bXMP DataXMP" + xmp, b"\x21\x01\x01x\0",
        b"\x21\xf9\0", b"\x21\xf9\x01\0\0", b"\x21\x77\x02ab\0",
        b"\x21\xff\x0bICCRGBG1012\xff" + b"\xff" * 255 + b"\0",
    ):  # fmt: skip
        assert (read(data[:at] + extension + data[at:]) == expected).all()


def test_other_files_are_unchanged():
    for data in (
        saved("JPEG"),
        saved("BMP"),
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\nIHDR",
        b"II*\0",
        b"text",
        b"",
    ):
        assert strip_ancillary_data(data) == data


@pytest.mark.parametrize("name", ["png_icc_2MB.png", "png_text_2MB.png"])
def test_files_from_bug_reports_are_read(shared_data, name):
    assert read((shared_data / "cases" / name).read_bytes()).std() > 10


def test_pillow_limits_are_unchanged():
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
