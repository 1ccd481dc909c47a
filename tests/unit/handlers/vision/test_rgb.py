"""Conversion to RGB: transparency and palettes."""

import struct

import numpy as np
import pytest
from PIL import Image

from handlers.vision.decode import decode_image
from tests.unit.handlers.vision.image_files import LIMIT, WHITE, quarters, saved


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_blended_onto_white(mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    decoded = decode_image(saved(image.convert(mode), "PNG"), LIMIT)
    assert tuple(decoded[1, 1]) == (0, 0, 0)
    assert tuple(decoded[6, 6]) == WHITE


def test_transparent_palette_color_is_blended_onto_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    assert tuple(decode_image(saved(image, "PNG", transparency=0), LIMIT)[0, 0]) == WHITE


def bmp(pixels: np.ndarray) -> bytes:
    """Return a 32-bit BMP with a mask for alpha (BITMAPV4HEADER). `pixels` are RGBA [height, width, 4]."""
    height, width, _ = pixels.shape
    content = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(content), 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = (header + masks).ljust(108, b"\0")
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(content), 0, 0, start) + header + content


def test_bmp_with_zero_alpha_is_opaque():
    pixels = np.concatenate([np.asarray(quarters()), np.zeros((48, 64, 1), np.uint8)], axis=2)
    assert (decode_image(bmp(pixels), LIMIT) == np.asarray(quarters())).all()
    pixels[:, :32, 3] = 255
    decoded = decode_image(bmp(pixels), LIMIT)
    assert (decoded[:, :32] == np.asarray(quarters())[:, :32]).all()
    assert (decoded[:, 32:] == 255).all()


def test_real_bmp_with_zero_alpha_is_opaque(shared_data):
    data = (shared_data / "cases" / "bmp32_alpha_mask_all_zero.bmp").read_bytes()
    assert decode_image(data, LIMIT).std() > 50


def test_fully_transparent_png_or_webp_is_white():
    for kind in ("PNG", "WEBP"):
        assert (decode_image(saved(Image.new("RGBA", (8, 8), (9, 9, 9, 0)), kind), LIMIT) == 255).all()


def test_transparent_palette_color_stays_transparent_when_turned():
    image = Image.new("P", (4, 2), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_image(saved(image, "PNG", transparency=0, exif=exif), LIMIT)
    assert (decoded.shape, tuple(decoded[0, 0])) == ((4, 2, 3), WHITE)
