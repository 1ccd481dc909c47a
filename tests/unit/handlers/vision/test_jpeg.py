"""Tests of decoding JPEGs with libjpeg-turbo: agreement with Pillow, errors and reduced sizes."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from handlers.core.errors import ImageTooLarge, InvalidImage
from handlers.vision import jpeg
from handlers.vision.decode import decode_image
from training.images import draw, to_jpeg

LIMIT = 50_000_000


def drawn(width: int, height: int) -> Image.Image:
    return draw("heart", np.random.default_rng(5), (width, height))


def saved(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def turned(orientation: int) -> dict[str, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def forbid_pillow(monkeypatch) -> None:
    """Make the test fail if Pillow decodes an image."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded by Pillow"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0},
        {"subsampling": 1},
        {"progressive": True, "quality": 40},
        {"restart_marker_rows": 1},
    ],
    ids=str,
)
def test_pixels_equal_those_of_pillow(mode, options, monkeypatch):
    data = saved(drawn(203, 149).convert(mode), **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    forbid_pillow(monkeypatch)
    assert (decode_image(data, LIMIT) == expected).all()


def test_pixels_of_real_photos_equal_those_of_pillow(shared_data):
    decoded = 0
    for path in sorted((shared_data / "photos").glob("*.*")):
        data = path.read_bytes()
        try:
            pixels = decode_image(data, LIMIT)
        except (InvalidImage, ImageTooLarge):
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jpeg, "simplejpeg", None)
            assert (decode_image(data, LIMIT) == pixels).all(), path.name
        decoded += 1
    assert decoded >= 35


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_image_has_at_least_the_minimum_size(orientation, monkeypatch):
    data = saved(drawn(801, 601), **turned(orientation))
    forbid_pillow(monkeypatch)
    lying = orientation >= 5
    full = decode_image(data, LIMIT)
    assert full.shape == ((801, 601, 3) if lying else (601, 801, 3))
    assert full.flags.c_contiguous
    for min_size, eighths in (
        ((301, 401), 4),
        ((301, 402), 8),
        ((10, 10), 1),
        ((151, 30), 2),
        ((152, 30), 3),
    ):
        oriented_min_size = min_size[::-1] if lying else min_size
        height, width, _ = decode_image(data, LIMIT, min_size=oriented_min_size).shape
        assert (height, width) == tuple(-(-size * eighths // 8) for size in full.shape[:2]), min_size
        assert height >= oriented_min_size[0]
        assert width >= oriented_min_size[1]


def test_reduced_image_looks_the_same():
    data = to_jpeg(drawn(1200, 900), quality=90)
    full = Image.fromarray(decode_image(data, LIMIT))
    for min_size in ((450, 600), (225, 300)):
        small = decode_image(data, LIMIT, min_size=min_size)
        expected = np.asarray(full.resize(min_size[::-1], Image.Resampling.BOX), int)
        assert np.abs(small - expected).mean() < 1.5


@pytest.mark.parametrize("kind", ["PNG", "CMYK"])
def test_image_that_cannot_be_reduced_keeps_its_size(kind):
    buffer = io.BytesIO()
    drawn(400, 300).convert("CMYK" if kind == "CMYK" else "RGB").save(
        buffer, "PNG" if kind == "PNG" else "JPEG"
    )
    assert decode_image(buffer.getvalue(), LIMIT, min_size=(10, 10)).shape == (300, 400, 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("min_size", [None, (20, 20)])
def test_truncated_jpeg_is_rejected(options, part, min_size):
    data = saved(drawn(400, 300), **options)
    with pytest.raises(InvalidImage, match="damaged or truncated"):
        decode_image(data[: int(len(data) * part)], LIMIT, min_size=min_size)


def test_jpeg_with_libjpeg_warning_is_decoded_by_pillow():
    data = saved(drawn(400, 300))
    odd = data[:-2] + b"\0\0\0" + data[-2:]
    expected = np.asarray(Image.open(io.BytesIO(odd)))
    assert (decode_image(odd, LIMIT) == expected).all()


def test_jpeg_of_unchecked_size_is_not_decoded():
    data = saved(drawn(400, 300))
    assert jpeg.decode_jpeg(data, (300, 400), None) is not None
    assert jpeg.decode_jpeg(data, (300, 401), None) is None


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_like_types_are_decoded(kind):
    data = saved(drawn(40, 30))
    assert (decode_image(kind(data), LIMIT) == decode_image(data, LIMIT)).all()


def test_pillow_decodes_without_simplejpeg_and_logs_it_once():
    code = """
import io, logging, sys
logging.basicConfig(format="%(message)s")
sys.modules["simplejpeg"] = None
from PIL import Image, ImageFile
from handlers.vision.decode import decode_image
file = io.BytesIO()
Image.new("L", (64, 48), 99).save(file, "JPEG")
for _ in range(2):
    pixels = decode_image(file.getvalue(), 10**6, min_size=(8, 8))
    assert pixels.shape == (48, 64, 3) and (pixels == 99).all()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("simplejpeg is not installed") == 1


def test_decoding_in_threads_gives_the_same_pixels():
    images = [drawn(200 + 8 * index, 150) for index in range(8)]
    files = [saved(image, **turned(index % 8 + 1)) for index, image in enumerate(images)]
    files += [saved(image.convert("CMYK")) for image in images]
    alone = [decode_image(data, LIMIT, min_size=(70, 70)) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_image(data, LIMIT, min_size=(70, 70)), files * 10))
    for index, pixels in enumerate(together):
        assert (pixels == alone[index % len(files)]).all()


def test_pillow_warnings_are_suppressed_in_all_threads():
    """Runs in a separate process, because pytest replaces the warning filters. Warnings are errors there."""
    code = """
import io, warnings
from concurrent.futures import ThreadPoolExecutor
from PIL import Image, ImageFile
from handlers.vision.decode import decode_image
file = io.BytesIO()
Image.new("RGB", (64, 48)).save(file, "TIFF", tiffinfo={270: "text"})
data = file.getvalue()
length = data.index((270).to_bytes(2, "little") + (2).to_bytes(2, "little")) + 4
odd = data[:length] + (10**6).to_bytes(4, "little") + data[length + 4 :]
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    Image.open(io.BytesIO(odd)).load()
assert warned, "the image is not odd"
with ThreadPoolExecutor(8) as pool:
    for pixels in pool.map(lambda data: decode_image(data, 10**6), [odd] * 80):
        assert pixels.shape == (48, 64, 3)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
