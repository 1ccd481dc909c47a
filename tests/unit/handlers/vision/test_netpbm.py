"""Tests of decoding PBM, PGM, PPM and PFM files of any depth, against the same images with 8 bits."""

import numpy as np
import pytest
from PIL import Image

from handlers.core.errors import ImageTooLarge, InvalidImage
from handlers.vision import netpbm
from handlers.vision.decode import decode_image

LIMIT = 10_000
HEIGHT, WIDTH = 12, 21
GRAY = np.linspace(0, 255, HEIGHT * WIDTH).round().reshape(HEIGHT, WIDTH, 1)
COLORS = np.concatenate([GRAY, GRAY[::-1], np.roll(GRAY, 77)], axis=2)
BITS = (np.arange(HEIGHT * WIDTH) % 3 == 0).reshape(HEIGHT, WIDTH).astype(np.uint8)


def file(kind: int, samples: np.ndarray, white: int | None, space: str = " ") -> bytes:
    """Return a plain or raw Netpbm file with `samples` [height, width, channels]."""
    fields = [f"P{kind}", WIDTH, HEIGHT, *([] if white is None else [white])]
    head = space.join(map(str, fields)).encode() + b"\n"
    if kind <= 3:
        return (
            head + "\n".join(" ".join(map(str, row)) for row in samples.reshape(HEIGHT, -1)).encode() + b"\n"
        )
    if kind == 4:
        return head + np.packbits(samples, axis=1).tobytes()
    return head + samples.astype(">u2" if white is not None and white > 255 else np.uint8).tobytes()


@pytest.mark.parametrize("white", [1, 3, 15, 100, 254, 255, 256, 1000, 1023, 4095, 65_534, 65_535])
@pytest.mark.parametrize("kind", [2, 3, 5, 6])
def test_largest_value_of_header_is_white(kind, white):
    samples = np.rint((COLORS if kind in (3, 6) else GRAY) / 255 * white).astype(int)
    expected = np.broadcast_to(np.rint(samples / white * 255), (HEIGHT, WIDTH, 3))
    for space in (" ", "\n", "\r\n", "\n# a comment\n#\r\t"):
        pixels = decode_image(file(kind, samples, white, space), LIMIT)
        assert pixels.dtype == np.uint8
        assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize("kind", [1, 4])
def test_set_bit_is_black(kind):
    expected = np.where(BITS, 0, 255)[..., None].repeat(3, axis=2)
    assert (decode_image(file(kind, BITS, None), LIMIT) == expected).all()


def test_plain_file_may_have_comments_and_bits_without_spaces():
    data = f"P1 {WIDTH} {HEIGHT}\n".encode() + b"# 1\n".join(bytes(row + 48) for row in BITS)
    assert (decode_image(data, LIMIT)[..., 0] == np.where(BITS, 0, 255)).all()
    assert decode_image(b"P2 2 1 9 9 # 7\n 0", LIMIT)[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(("order", "scale"), [("<", -1.0), (">", 1.0)])
def test_gray_pfm_is_decoded(order, scale):
    """PFM rows start at the bottom, and the sign of the scale defines the byte order."""
    values = (GRAY[::-1] / 255).astype(f"{order}f4").tobytes()
    pixels = decode_image(f"Pf\n{WIDTH} {HEIGHT}\n{scale}\n".encode() + values, LIMIT)
    assert np.abs(pixels - GRAY).max() <= 1


def test_bytes_after_the_image_are_ignored():
    data = file(5, GRAY, 255)
    for twice in (data + data, bytearray(data + data), memoryview(data + data)):
        assert (decode_image(twice, LIMIT) == GRAY).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (file(5, GRAY, 255)[:-1], "damaged or truncated"),
        (file(6, COLORS, 65_535)[:-1], "damaged or truncated"),
        (file(4, BITS, None)[:-1], "damaged or truncated"),
        (b"P2 2 2 9 1 2 3", "damaged or truncated"),
        (b"P2 2 1 9 1 x", "damaged or truncated"),
        (b"P2 2 1 9 1 -2", "damaged or truncated"),
        (b"P2 2 1 9 1 2.5", "damaged or truncated"),
        (b"P1 2 1 1 2", "damaged or truncated"),
        (b"P1 2 1 1", "damaged or truncated"),
        (b"P2 2 1 9" + b"\n#" * (netpbm.MAX_COMMENTS + 1), "more than 1000 comments"),
        (b"P2 2 1 9 1 10", "has the value 10, above 9, the largest value by its header"),
        (b"P5 2 1 9 \x01\x20", "has the value 32, above 9, the largest value by its header"),
        (b"P2 1 1 9 99999999999999999999", "above 9, the largest value by its header"),
        (b"P2 2 1 255 1 4294967297", "above 255, the largest value by its header"),
        (b"P5 2 1 0 \0\0", "Netpbm file's header"),
        (b"P5 2 1 65536 " + bytes(4), "Netpbm file's header"),
        (b"P5 0 1 255 ", "Netpbm file's header"),
        (b"P5 2", "Netpbm file's header"),
        (b"P6 # no end", "Netpbm file's header"),
        (b"P7\nWIDTH 2\n", "PAM files are not supported"),
        (b"PyRGBA 2 1 255 " + bytes(8), "not in a supported image format"),
        (b"Pf 1 1 0\n" + bytes(4), "Netpbm file's header"),
    ],
)
def test_invalid_netpbm_is_rejected(data, reason):
    with pytest.raises(InvalidImage, match=reason):
        decode_image(data, LIMIT)


def test_too_large_size_is_rejected_before_samples_are_parsed(monkeypatch):
    monkeypatch.setattr("handlers.vision.decode.netpbm_pixels", lambda data: pytest.fail("decoded"))
    for kind in (1, 2, 3, 4, 5, 6):
        with pytest.raises(ImageTooLarge, match="100 x 101 pixels"):
            decode_image(f"P{kind} 100 101 255\n".encode() + b"1 " * 50, LIMIT)


def test_endless_header_comment_is_rejected_quickly():
    for filling in (b"#\n", b" ", b"#"):
        with pytest.raises(InvalidImage, match="Netpbm file's header"):
            decode_image(b"P5 " + filling * netpbm.MAX_HEADER_BYTES + b"\n2 1 255 ab", LIMIT)


def test_netpbm_files_are_not_decoded_by_pillow(monkeypatch):
    """Pillow's Netpbm decoders take minutes for an image within the limits."""
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded by Pillow"))
    for kind, samples, white in (
        (1, BITS, None),
        (2, GRAY.astype(int), 255),
        (4, BITS, None),
        (6, COLORS, 100),
    ):
        decode_image(file(kind, np.minimum(samples, white or 1), white), LIMIT)
