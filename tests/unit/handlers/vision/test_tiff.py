"""Tests of TIFFs of every bit depth and photometric interpretation, against the same images with 8 bits."""

import itertools
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from handlers.core.errors import InvalidImage
from handlers.vision.decode import decode_image
from tests.unit.handlers.vision import tiffs
from tests.unit.handlers.vision.tiffs import scaled, tiff

LIMIT = 1_000_000
HEIGHT, WIDTH = 20, 24
GRAY = np.linspace(0, 255, HEIGHT * WIDTH).round().astype(np.uint8).reshape(HEIGHT, WIDTH, 1)
COLORS = np.concatenate([GRAY, GRAY[::-1], np.roll(GRAY, 77)], axis=2)
ALPHA = np.full_like(GRAY, 255)
ALPHA[:, :8] = 0
LAYOUTS = [
    {"endian": endian, "fill_order": fill_order, "planar": planar, "compression": compression, **blocks}
    for endian, fill_order, planar, compression in itertools.product("<>", (1, 2), (1, 2), (1, 8))
    for blocks in ({}, {"rows_per_strip": 7}, {"tile": 16})
]


def read(data: bytes) -> np.ndarray:
    return decode_image(data, LIMIT).astype(int)


def in_eight_bits(levels: np.ndarray, bits: int) -> np.ndarray:
    """Return levels from 0 to 255 after a conversion to `bits` and back."""
    return np.broadcast_to(np.rint(scaled(levels, bits) * 255 / (2**bits - 1)), (HEIGHT, WIDTH, 3)).astype(
        int
    )


def assert_read_or_refused(files, expected: np.ndarray, most_off: int = 1) -> int:
    """Assert that each file is decoded to the expected image or rejected. Return the number of decoded files."""
    count = 0
    for data in files:
        try:
            pixels = read(data)
        except InvalidImage:
            continue
        assert np.abs(pixels - expected).max() <= most_off
        count += 1
    return count


@pytest.mark.parametrize("photometric", [tiffs.WHITE_IS_ZERO, tiffs.BLACK_IS_ZERO])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16, 24, 32])
def test_gray_tiff_is_decoded(bits, photometric):
    values = scaled(GRAY, bits)
    if photometric == tiffs.WHITE_IS_ZERO:
        values = 2**bits - 1 - values
    count = assert_read_or_refused(
        (tiff(values, bits, photometric, **layout) for layout in LAYOUTS), in_eight_bits(GRAY, bits)
    )
    readable = {(12, 1): 12, (16, 0): 12, (16, 1): 36, (32, 1): 12}
    assert count == readable.get((bits, photometric), len(LAYOUTS) if bits <= 8 else 0)


@pytest.mark.parametrize("photometric", [tiffs.WHITE_IS_ZERO, tiffs.BLACK_IS_ZERO])
@pytest.mark.parametrize("white", [1.0, 255.0])
def test_float_tiff_is_decoded(white, photometric):
    values = GRAY / 255 * white
    if photometric == tiffs.WHITE_IS_ZERO:
        values = white - values
    files = (tiff(values, 32, photometric, sample_format=tiffs.FLOAT, **layout) for layout in LAYOUTS)
    assert assert_read_or_refused(files, in_eight_bits(GRAY, 8)) == 24


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16, 32])
def test_rgb_cmyk_and_alpha_tiffs_are_decoded(bits):
    """Files have no alpha, a channel of unknown meaning, or one of the two types of alpha."""
    on_white = np.where(ALPHA == 0, 255, COLORS)
    cmyk = np.concatenate([255 - COLORS, np.zeros_like(GRAY)], axis=2)
    opaque, transparent = in_eight_bits(COLORS, bits), in_eight_bits(on_white, bits)
    multiplied = np.where(ALPHA == 0, 0, COLORS)
    for channels, photometric, extra, expected, count in (
        ((COLORS,), tiffs.RGB, None, opaque, {8: 48, 16: 24}),
        ((cmyk,), tiffs.CMYK, None, opaque, {8: 24, 16: 24}),
        ((COLORS, ALPHA), tiffs.RGB, [0], opaque, {8: 36, 16: 24}),
        ((multiplied, ALPHA), tiffs.RGB, [1], transparent, {8: 24, 16: 24}),
        ((COLORS, ALPHA), tiffs.RGB, [2], transparent, {8: 24, 16: 24}),
        ((COLORS, ALPHA), tiffs.RGB, None, transparent, {8: 24, 16: 24}),
    ):
        values = scaled(np.concatenate(channels, axis=2), bits)
        files = (tiff(values, bits, photometric, extra=extra, **layout) for layout in LAYOUTS)
        assert assert_read_or_refused(files, expected) == count.get(bits, 0)


@pytest.mark.parametrize(("extra", "is_alpha"), [(0, False), (1, True), (2, True)])
@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
def test_gray_tiff_with_second_channel_is_decoded(bits, extra, is_alpha):
    expected = in_eight_bits(np.where(ALPHA == 0, 255, GRAY) if is_alpha else GRAY, bits)
    gray = np.where(ALPHA == 0, 0, GRAY) if extra == 1 else GRAY
    values = scaled(np.concatenate([gray, ALPHA], axis=2), bits)
    files = (tiff(values, bits, tiffs.BLACK_IS_ZERO, extra=[extra], **layout) for layout in LAYOUTS)
    assert assert_read_or_refused(files, expected) == (12 if bits == 8 else 0)


@pytest.mark.parametrize("factor", [257, 1], ids=["colors of 16 bits", "colors of 8 bits"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_tiff_is_decoded(bits, factor):
    palette = np.random.default_rng(1).integers(0, 256, (2**bits, 3))
    indices = (np.arange(HEIGHT * WIDTH) % 2**bits).reshape(HEIGHT, WIDTH, 1)
    tags = {320: (tiffs.SHORT, (palette.T.ravel() * factor).tolist())}
    files = (tiff(indices, bits, tiffs.PALETTE, tags=tags, **layout) for layout in LAYOUTS)
    assert assert_read_or_refused(files, palette[indices[..., 0]], 0) == len(LAYOUTS)


def test_ycbcr_tiff_is_decoded():
    values = np.asarray(Image.fromarray(COLORS).convert("YCbCr"))
    tags = {530: (tiffs.SHORT, [1, 1])}
    files = (tiff(values, 8, tiffs.YCBCR, tags=tags, **layout) for layout in LAYOUTS)
    assert assert_read_or_refused(files, COLORS.astype(int), 4) == 24
    with pytest.raises(InvalidImage, match="without the tag YCbCrSubSampling"):
        read(tiff(values, 8, tiffs.YCBCR))


@pytest.mark.parametrize("compression", [tiffs.NONE, tiffs.DEFLATE])
def test_subsampled_ycbcr_tiff_is_decoded(compression):
    """Each 2 x 2 square has four luma samples, one Cb and one Cr sample (TIFF 6.0, section 21)."""
    y, cb, cr = 120, 90, 200
    units = np.tile(np.array([y] * 4 + [cb, cr], np.uint8), HEIGHT * WIDTH // 4)
    tags = {
        256: (tiffs.SHORT, [WIDTH]), 257: (tiffs.SHORT, [HEIGHT]), 258: (tiffs.SHORT, [8, 8, 8]),
        277: (tiffs.SHORT, [3]), 278: (tiffs.SHORT, [HEIGHT]), 339: (tiffs.SHORT, [1, 1, 1]),
        530: (tiffs.SHORT, [2, 2]),
    }  # fmt: skip
    data = tiff(units.reshape(1, -1, 1), 8, tiffs.YCBCR, tags=tags, compression=compression)
    expected = Image.new("YCbCr", (WIDTH, HEIGHT), (y, cb, cr)).convert("RGB")
    assert np.abs(read(data) - np.asarray(expected, int)).max() <= 2


@pytest.mark.parametrize("layout", [{}, {"compression": 8, "endian": ">"}, {"tile": 16}])
def test_lab_tiff_is_decoded(layout):
    """CIE L*a*b* with white point D50: L* is 0 to 255, a* and b* are signed (TIFF 6.0, section 23)."""
    rows, columns = np.linspace(60, 200, HEIGHT)[:, None], np.linspace(60, 200, WIDTH)[None]
    smooth = np.stack(np.broadcast_arrays(rows, columns, 128), axis=-1).round().astype(np.uint8)
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(Image.fromarray(smooth), ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    data = tiff(np.asarray(lab), 8, tiffs.LAB, **layout)
    off = np.abs(read(data) - smooth)
    assert off.max() <= 12
    assert off.mean() < 1
    with pytest.raises(InvalidImage, match="separate planes"):
        read(tiff(np.asarray(lab), 8, tiffs.LAB, **layout | {"planar": 2}))


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize(("bits", "endian"), [(8, "<"), (12, "<"), (16, ">")])
def test_orientation_is_applied(bits, endian, orientation):
    data = tiff(scaled(GRAY, bits), bits, 1, endian=endian, tags={274: (tiffs.SHORT, [orientation])})
    expected = np.rot90(in_eight_bits(GRAY, 8), {3: 2, 6: -1}[orientation])
    assert np.abs(read(data) - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "bits", "sample_format", "reason"),
    [
        (GRAY, 10, tiffs.UNSIGNED, "10 bits per pixel, photometric interpretation 1"),
        (GRAY.astype(int) - 128, 8, tiffs.SIGNED, "signed integers"),
        (GRAY.astype(int), 16, tiffs.SIGNED, "signed integers"),
        (GRAY.astype(int), 32, tiffs.SIGNED, "signed integers"),
        (
            GRAY.astype(int) * 257,
            32,
            tiffs.UNSIGNED,
            "largest value is 65535, but white is",
        ),
        (GRAY * 10.0, 32, tiffs.FLOAT, "with values from 0 to 2550"),
        (GRAY / 255 * 4.5, 32, tiffs.FLOAT, "with values from 0 to 4.5"),
        (GRAY / 255 - 0.5, 32, tiffs.FLOAT, "with values from -0.5 to 0.5"),
        (np.where(GRAY == 7, np.inf, GRAY / 255), 32, tiffs.FLOAT, "with values from 0 to inf"),
    ],
)
def test_tiff_without_defined_white_is_rejected(values, bits, sample_format, reason):
    with pytest.raises(InvalidImage, match=reason):
        read(tiff(values, bits, tiffs.BLACK_IS_ZERO, sample_format=sample_format))


def test_tiff_with_other_inks_is_rejected():
    values = np.concatenate([COLORS, GRAY], axis=2)
    with pytest.raises(InvalidImage, match="inks other than CMYK"):
        read(tiff(values, 8, tiffs.CMYK, tags={332: (tiffs.SHORT, [2])}))


def test_zero_fourth_channel_is_alpha_only_if_declared():
    values = np.concatenate([COLORS, np.zeros_like(GRAY)], axis=2)
    assert (read(tiff(values, 8, tiffs.RGB)) == COLORS).all()
    assert (read(tiff(values, 8, tiffs.RGB, extra=[2])) == 255).all()


def test_nan_in_float_tiff_does_not_affect_other_pixels():
    values = np.array([[[0.0], [1.0], [np.nan]]])
    assert read(tiff(values, 32, tiffs.BLACK_IS_ZERO, sample_format=tiffs.FLOAT))[0, :, 0].tolist() == [
        0,
        255,
        0,
    ]


def test_black_is_black_at_every_depth():
    black = np.zeros_like(GRAY)
    for bits, sample_format in ((16, tiffs.UNSIGNED), (32, tiffs.UNSIGNED), (32, tiffs.FLOAT)):
        assert (read(tiff(black, bits, tiffs.BLACK_IS_ZERO, sample_format=sample_format)) == 0).all()


@pytest.mark.parametrize("endian", ["<", ">"])
def test_tiff_with_metadata_of_wrong_type_is_read(endian):
    """The resolution is an integer, and the offsets of the profile and EXIF are beyond the file's end."""
    tags = {
        282: (tiffs.SHORT, [1]), 283: (tiffs.SHORT, [1, 2, 3]), 296: (tiffs.SHORT, [3]),
        34665: (tiffs.LONG, [2**31]), 34675: (tiffs.LONG, [1] * 400), 700: (tiffs.LONG, [7]),
    }  # fmt: skip
    data = tiff(GRAY, 8, tiffs.BLACK_IS_ZERO, endian=endian, tags=tags | {274: (tiffs.SHORT, [6])})
    assert (read(data) == np.rot90(in_eight_bits(GRAY, 8), -1)).all()


def test_real_12_bit_tiff_is_decoded(shared_data):
    pixels = read((shared_data / "cases" / "gray_12_bits.tif").read_bytes())
    assert pixels.max() > 200
    assert 60 < pixels.mean() < 200


def test_truncated_directory_is_rejected():
    data = tiff(GRAY, 8, tiffs.BLACK_IS_ZERO)
    (start,) = struct.unpack_from("<I", data, 4)
    for end in (4, 8, start, start + 1, start + 30):
        with pytest.raises(InvalidImage):
            read(data[:end])
