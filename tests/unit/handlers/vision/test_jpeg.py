"""JPEGs by libjpeg-turbo: Pillow's pixels, its refusals, and fewer pixels where that is enough."""

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
    """From here on pixels come from libjpeg-turbo, or the test fails."""
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
def test_every_pixel_is_as_pillow_has_it(mode, options, monkeypatch):
    data = saved(drawn(203, 149).convert(mode), **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    forbid_pillow(monkeypatch)
    assert (decode_image(data, LIMIT) == expected).all()


def test_every_pixel_of_real_photos_is_as_pillow_has_it(shared_data):
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
def test_smaller_images_are_no_smaller_than_asked_for(orientation, monkeypatch):
    data = saved(drawn(801, 601), **turned(orientation))
    forbid_pillow(monkeypatch)
    lying = orientation >= 5
    full = decode_image(data, LIMIT)
    assert full.shape == ((801, 601, 3) if lying else (601, 801, 3))
    assert full.flags.c_contiguous
    for at_least, eighths in (
        ((301, 401), 4),
        ((301, 402), 8),
        ((10, 10), 1),
        ((151, 30), 2),
        ((152, 30), 3),
    ):
        wanted = at_least[::-1] if lying else at_least
        height, width, _ = decode_image(data, LIMIT, at_least=wanted).shape
        assert (height, width) == tuple(-(-size * eighths // 8) for size in full.shape[:2]), at_least
        assert height >= wanted[0]
        assert width >= wanted[1]


def test_a_smaller_image_shows_the_same():
    data = to_jpeg(drawn(1200, 900), quality=90)
    full = Image.fromarray(decode_image(data, LIMIT))
    for at_least in ((450, 600), (225, 300)):
        small = decode_image(data, LIMIT, at_least=at_least)
        expected = np.asarray(full.resize(at_least[::-1], Image.Resampling.BOX), int)
        assert np.abs(small - expected).mean() < 1.5


@pytest.mark.parametrize("kind", ["PNG", "CMYK"])
def test_other_images_stay_as_they_are(kind):
    buffer = io.BytesIO()
    drawn(400, 300).convert("CMYK" if kind == "CMYK" else "RGB").save(
        buffer, "PNG" if kind == "PNG" else "JPEG"
    )
    assert decode_image(buffer.getvalue(), LIMIT, at_least=(10, 10)).shape == (300, 400, 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("at_least", [None, (20, 20)])
def test_a_jpeg_that_was_cut_off_is_refused(options, part, at_least):
    data = saved(drawn(400, 300), **options)
    with pytest.raises(InvalidImage, match="damaged or cut off"):
        decode_image(data[: int(len(data) * part)], LIMIT, at_least=at_least)


def test_what_libjpeg_only_warns_of_is_left_to_pillow():
    data = saved(drawn(400, 300))
    odd = data[:-2] + b"\0\0\0" + data[-2:]
    expected = np.asarray(Image.open(io.BytesIO(odd)))
    assert (decode_image(odd, LIMIT) == expected).all()


def test_a_size_other_than_the_one_that_was_checked_is_not_decoded():
    data = saved(drawn(400, 300))
    assert jpeg.decode_jpeg(data, (300, 400), None) is not None
    assert jpeg.decode_jpeg(data, (300, 401), None) is None


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_of_any_kind(kind):
    data = saved(drawn(40, 30))
    assert (decode_image(kind(data), LIMIT) == decode_image(data, LIMIT)).all()


def test_without_simplejpeg_pillow_decodes_and_the_log_says_so_once():
    code = """
import io, logging, sys
logging.basicConfig(format="%(message)s")
sys.modules["simplejpeg"] = None
from PIL import Image, ImageFile
from handlers.vision.decode import decode_image
file = io.BytesIO()
Image.new("L", (64, 48), 99).save(file, "JPEG")
for _ in range(2):
    pixels = decode_image(file.getvalue(), 10**6, at_least=(8, 8))
    assert pixels.shape == (48, 64, 3) and (pixels == 99).all()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("simplejpeg is not installed") == 1


def test_threads_decode_as_one_does():
    images = [drawn(200 + 8 * index, 150) for index in range(8)]
    files = [saved(image, **turned(index % 8 + 1)) for index, image in enumerate(images)]
    files += [saved(image.convert("CMYK")) for image in images]
    alone = [decode_image(data, LIMIT, at_least=(70, 70)) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_image(data, LIMIT, at_least=(70, 70)), files * 10))
    for index, pixels in enumerate(together):
        assert (pixels == alone[index % len(files)]).all()


def test_no_warning_of_pillow_leaves_any_thread():
    """In a process of its own, since pytest has its own filters; there any warning would be an error."""
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
